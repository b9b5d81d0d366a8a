"""A plan's tables, for terminals and pages alike. Every table says where its figures come from."""

from collections.abc import Sequence

from windtunnel.planning.plan import Plan, step_basis
from windtunnel.planning.published import Case
from windtunnel.planning.serving import Serving
from windtunnel.planning.step import Step
from windtunnel.report import Table, figures

SHOWN = 8  # of the meshes that fit


def tables(plan: Plan) -> list[Table]:
    """All of them, in the order of the questions: does it fit, how long does it take, what waits, what serves."""
    found = [
        memory(plan),
        operations(plan),
        step(plan),
        traffic(plan),
        meshes(plan),
        served(plan.serving),
        inputs(plan),
    ]
    return [table for table in found if table.rows]


def inputs(plan: Plan) -> Table:
    """What the plan rests on."""
    return Table(
        caption="What this rests on",
        columns=("input", "value", "basis", "source"),
        rows=[tuple(each) for each in plan.inputs],
        note="Counted: read off the model. Modelled: computed from all of these, no better than what is assumed.",
    )


def memory(plan: Plan) -> Table:
    """Bytes of the fullest device."""
    chosen = plan.step
    rows = [(part.name, size(part.size), str(part.basis), part.note) for part in chosen.memory]
    rows.append(("sum", size(chosen.bytes), "", f"of {size(plan.task.usable)} that can be used"))
    return Table(caption="Memory of a device", columns=("part", "bytes", "basis", "how"), rows=rows, numeric=(1,))


def operations(plan: Plan) -> Table:
    """FLOPs a token by mechanism, forward, and of a training step."""
    ledger, again = plan.task.facts.ledger, plan.step.layout.recompute
    rows = [
        (row.mechanism, many(row.parameters), figures.counted(row.dense), figures.counted(row.model))
        for row in ledger.rows
    ]
    flops = plan.flops_per_token
    rows.append(("training", "", figures.counted(flops["dense"]), figures.counted(flops["attended"])))
    if again:
        rows.append((f"with {again:.0%} recomputed", "", figures.counted(flops["dense, recomputed"]), ""))
    return Table(
        caption="Operations of a token (counted)",
        columns=("FLOPs", "parameters", "all pairs", "attended pairs"),
        rows=rows,
        numeric=(1, 2, 3),
        note="MFU and HFU count all pairs, as PaLM does; the causal mask hides about half of them.",
    )


def step(plan: Plan) -> Table:
    """Time, utilisation, and the whole training."""
    chosen, basis = plan.step, step_basis(plan.step)
    rows = [
        ("step", seconds(chosen.seconds), basis),
        ("  matrix products", seconds(chosen.products), "modelled"),
        ("  waiting for transfers", seconds(chosen.waits), "modelled"),
        ("  optimiser", seconds(chosen.update), "modelled"),
        *([("  pipeline's bubble", seconds(chosen.bubble), "modelled")] if chosen.bubble else []),
        *([("step, as modelled", seconds(chosen.modelled), "modelled")] if basis == "given" else []),
        ("tokens a second", figures.counted(chosen.tokens_per_second), basis),
        ("MFU", percent(chosen.mfu), basis),
        ("MFU, attended pairs alone", percent(chosen.mfu_attended), basis),
        ("HFU", percent(chosen.hfu), basis),
        (f"{many(plan.tokens)} tokens", span(plan.seconds), basis),
        ("device-hours", figures.counted(plan.device_hours), basis),
        *([("cost", figures.counted(plan.cost), basis)] if plan.cost is not None else []),
    ]
    return Table(caption="A training step, and all of them", columns=("", "value", "basis"), rows=rows, numeric=(1,))


def traffic(plan: Plan) -> Table:
    """What devices send each other."""
    rows = [
        (
            each.axis,
            f"{each.operation} of {each.what}",
            figures.exact(each.members),
            size(each.sent),
            size(each.per_host) if each.per_host is not None else "inside an island",
            seconds(each.seconds),
            "beside products" if each.hidden else "waited for",
        )
        for each in plan.step.traffic
    ]
    return Table(
        caption="Traffic of a step (modelled)",
        columns=("axis", "what", "among", "a device sends", "a host sends", "takes", ""),
        rows=rows,
        numeric=(2, 3, 5),
        note="Rings at the published bandwidths times the link share; a host's traffic is what leaves it in one step.",
    )


def meshes(plan: Plan) -> Table:
    """The fastest that fit, by this model."""
    rows = [
        (
            each.layout.mesh.words,
            f"{each.layout.recompute:g}",
            str(each.layout.microbatch),
            size(each.bytes),
            seconds(each.modelled),
            percent(each.mfu),
        )
        for each in plan.others[:SHOWN]
    ]
    return Table(
        caption=f"Meshes that fit: {len(plan.others)}, the fastest first (modelled)",
        columns=("mesh", "recomputed", "microbatch", "memory", "step", "MFU"),
        rows=rows,
        numeric=(1, 2, 3, 4, 5),
        note="Differences of a few percent are within what the model leaves out.",
    )


def served(plan: Serving) -> Table:
    """Decoding by batch."""
    experts = any(batch.expert_tokens is not None for batch in plan.batches)
    rows = [
        (
            figures.exact(batch.sequences),
            figures.exact(batch.in_flight),
            seconds(batch.seconds),
            figures.counted(batch.tokens_per_second),
            batch.bound,
            *([figures.counted(batch.expert_tokens)] if experts else []),
        )
        for batch in plan.batches
    ]
    return Table(
        caption=f"Serving on {plan.mesh.words}, texts of {plan.length:,} tokens",
        columns=(
            "batch",
            "under way",
            "a token",
            "tokens a second",
            "bound by",
            *(["tokens an expert"] if experts else []),
        ),
        rows=rows,
        numeric=(0, 1, 2, 3, 5) if experts else (0, 1, 2, 3),
        note=f"Modelled: the least a token can take. Weights {size(plan.weights)} on a device, state of a sequence "
        f"{size(plan.sequence)} in all ({size(plan.state)} on a device), room for {figures.exact(plan.most)}; "
        f"the prompt takes at least {seconds(plan.first)}.",
    )


def published(cases: Sequence[Case]) -> Table:
    """The planner beside what papers print."""
    rows = [
        (case.name, f"{case.published:g}", f"{case.computed:.4g}", case.unit, "yes" if case.agrees else "no", case.note)
        for case in cases
    ]
    return Table(
        caption="Published figures, and what their own inputs give",
        columns=("case", "published", "computed", "unit", "agrees", "why"),
        rows=rows,
        numeric=(1, 2),
        note="Sources: " + "; ".join(dict.fromkeys(case.source for case in cases)) + ".",
    )


def many(value: float) -> str:
    """Parameters and tokens: billions are B."""
    return figures.counted(value).replace("G", "B")


def size(value: float) -> str:
    """Bytes in powers of 1024."""
    return figures.byte_count(value) if value < 1 << 40 else f"{value / 2**40:.3g} TiB"


def seconds(value: float) -> str:
    """Seconds, or a part of one."""
    return f"{value:.3g} s" if value >= 1 else f"{1e3 * value:.3g} ms"


def span(value: float) -> str:
    """A time to train, in days where it takes more than two."""
    return f"{value / 86_400:,.3g} days" if value >= 2 * 86_400 else figures.duration(value)


def percent(share: float) -> str:
    """With one decimal."""
    return f"{100 * share:.1f} %"


def summary(chosen: Step) -> str:
    """The step in one line."""
    return (
        f"{chosen.layout.mesh.words}: {size(chosen.bytes)} of {size(chosen.task.usable)} on a device, "
        f"{seconds(chosen.seconds)} a step, {figures.counted(chosen.tokens_per_second)} tokens a second, "
        f"MFU {percent(chosen.mfu)}"
    )
