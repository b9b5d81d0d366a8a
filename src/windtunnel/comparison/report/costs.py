"""What an arm costs: Pareto plots, FLOPs by mechanism, throughput, decoding state."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from windtunnel.comparison.report.losses import COSTS
from windtunnel.comparison.report.reading import Arm, Estimate, Study, bounded, items, mapping
from windtunnel.report import Axis, Chart, Details, Part, Section, Series, Table, Tabs, figures


@dataclass(frozen=True, kw_only=True)
class _Point:
    arm: Arm
    cost: float
    loss: Estimate
    name: str
    last: bool

    @property
    def value(self) -> float:
        return self.loss.value or 0.0


def pareto_section(study: Study) -> Section | None:
    """Loss against one cost at a time."""
    axes: list[tuple[str, str, Callable[[float], str], list[_Point]]] = [
        (cost.tab, cost.title, cost.form, _by_horizon(study, cost.of_token)) for cost in COSTS[1:]
    ]
    context = study.context
    state = "decoding state" + (f" at {context} tokens" if context else "")
    axes.append(
        (
            "Parameters",
            "all parameters",
            figures.counted,
            _by_arm(study, lambda arm: arm.number("params", "n_total") or arm.number("n_body")),
        )
    )
    axes.append(("State", state, figures.byte_count, _by_arm(study, lambda arm: arm.state_at(context))))
    charts = [(tab, _pareto(tab, title, form, points)) for tab, title, form, points in axes if points]
    if not charts:
        return None
    lead = (
        "Lower left is better. Filled points are not significantly beaten; a hollow one is beaten on both axes "
        "with its interval apart."
    )
    return Section(
        key="pareto", title="What is worth its cost", short="Pareto", lead=lead, parts=[Tabs(title="Cost", tabs=charts)]
    )


def cost_section(study: Study) -> Section:
    """Ledger, throughput, state."""
    parts: list[Part] = [_parameters(study), _flops(study)]
    speed = [arm for arm in study.arms if arm.part("throughput")]
    if speed:
        parts.append(_throughput(speed))
    if any(items(arm.raw.get("ledger")) for arm in study.arms):
        parts += _ledger(study)
    if any(arm.state_sizes for arm in study.arms):
        parts.append(_state(study))
    lead = (
        "Counted from the specs and checked against a counter; throughput is measured apart from training, arms "
        "in alternation."
    )
    return Section(key="costs", title="FLOPs, throughput, memory", short="Costs", lead=lead, parts=parts)


def _by_horizon(study: Study, of_token: Callable[[Arm], float | None]) -> list[_Point]:
    points = []
    for arm in study.arms:
        one, horizons = of_token(arm), arm.horizons
        for k, (_, tokens, loss) in enumerate(horizons):
            if one:
                last = k == len(horizons) - 1
                points.append(
                    _Point(arm=arm, cost=tokens * one, loss=loss, name=f"{figures.counted(tokens)} tokens", last=last)
                )
    return points


def _by_arm(study: Study, cost_of: Callable[[Arm], float | None]) -> list[_Point]:
    known = [(arm, cost) for arm in study.arms if not arm.failed and (cost := cost_of(arm))]
    return [_Point(arm=arm, cost=cost, loss=arm.loss, name="final", last=True) for arm, cost in known]


def _pareto(tab: str, title: str, form: Callable[[float], str], points: list[_Point]) -> Chart:
    frontier = _frontier(points)
    beaten = [p for p in points if any(_beats(other, p) for other in points)]
    edge = Series(
        name="frontier", x=[p.cost for p in frontier], y=[p.value for p in frontier], line="step", colour="var(--quiet)"
    )
    by_arm = list(dict.fromkeys(p.arm.name for p in points))
    series = [one for name in by_arm for one in _arm_points([p for p in points if p.arm.name == name], beaten, form)]
    return Chart(
        key=f"pareto-{tab.lower()}",
        title=f"Loss against {title}",
        description=f"On the frontier: {', '.join(f'{p.arm.name} ({p.name})' for p in frontier)}",
        x=Axis(title=f"{title} (log scale)", log=True, form=form),
        y=Axis(title="held-out loss (nats a token)", form=figures.fixed),
        series=[edge, *series],
        note=(
            "Points are seed means of fully decayed runs, whiskers 95 % intervals. The dashed stair joins the "
            "points that no other mean beats."
        ),
    )


def _arm_points(points: list[_Point], beaten: list[_Point], form: Callable[[float], str]) -> list[Series]:
    arm = points[0].arm
    several = len(points) > 1
    line = Series(
        name=arm.name, x=[p.cost for p in points], y=[p.value for p in points], line="faint", colour=arm.colour
    )
    drawn = [line] if several else []
    for hollow in (False, True):
        chosen = [p for p in points if (p in beaten) == hollow]
        if chosen:
            drawn.append(
                Series(
                    name=arm.name,
                    x=[p.cost for p in chosen],
                    y=[p.value for p in chosen],
                    low=[p.loss.low for p in chosen],
                    high=[p.loss.high for p in chosen],
                    colour=arm.colour,
                    marker=arm.marker,
                    hollow=hollow,
                    labels=[arm.name if p.last else "" for p in chosen],
                    tips=[
                        f"{arm.name}, {p.name}\n{figures.fixed(p.value)} {figures.interval(p.loss.low, p.loss.high)} "
                        f"nats\n{form(p.cost)}"
                        for p in chosen
                    ],
                )
            )
    return drawn


def _frontier(points: list[_Point]) -> list[_Point]:
    """Points whose mean no cheaper point beats, cheapest first."""
    found: list[_Point] = []
    for point in sorted(points, key=lambda p: (p.cost, p.value)):
        if not found or point.value < found[-1].value:
            found.append(point)
    return found


def _beats(other: _Point, point: _Point) -> bool:
    """Cheaper, and a loss whose interval lies wholly below."""
    if other.loss.high is None or point.loss.low is None:
        return False
    return other.cost < point.cost and other.loss.high < point.loss.low


def _parameters(study: Study) -> Table:
    rows = []
    for arm in study.arms:
        body = arm.number("n_body") or arm.number("params", "n_body")
        counts = [
            arm.number("params", f"n_{kind}") for kind in ("total", "emb", "unemb", "matmul", "active", "body_active")
        ]
        counts[-1] = counts[-1] or body  # results written before experts were counted
        every = [counts[0], body, *counts[1:]]
        rows.append((arm.name, figures.gap(arm.number("param_gap")), *(figures.exact(count) for count in every)))
    columns = ("arm", "gap", "all", "body", "embedding", "unembedding", "matmul", "active", "active body")
    note = (
        "Arms are matched on the active body: body parameters that a token meets, all of them where there are no "
        "experts. Matmul: multiplied for each token, the head included; active: of these, with routed experts only."
    )
    return Table(caption="Parameters, seven counts", columns=columns, rows=rows, numeric=range(1, 9), note=note)


def _flops(study: Study) -> Table:
    base = study.baseline
    reference = base.number("flops_per_token") if base else None
    rows = []
    for arm in study.arms:
        flops = arm.number("flops_per_token") or arm.number("flops", "model")
        relative = flops / reference if flops and reference else None
        others = [figures.counted(arm.number("flops", kind)) for kind in ("hardware", "elementwise")]
        rows.append((arm.name, figures.counted(flops), figures.ratio(relative), *others))
    columns = ("arm", "model", "ratio to the baseline", "hardware", "element-wise")
    note = (
        "Budgets use model FLOPs; hardware is what the kernels really execute; element-wise operations are "
        "counted apart."
    )
    said = " ".join([note, *(words for arm in study.arms if (words := _by_kernel(arm)))])
    return Table(caption="Training FLOPs a token", columns=columns, rows=rows, numeric=range(1, 5), note=said)


def _by_kernel(arm: Arm) -> str:
    """The FLOPs under each kernel, where they depend on it."""
    kernels = mapping(arm.part("flops").get("by_kernel"))
    known = {str(name): value for name, value in kernels.items() if figures.number_or_none(value) is not None}
    if len(set(known.values())) < 2:
        return ""
    return f"{arm.name}: {', '.join(f'{figures.counted(value)} with {name}' for name, value in known.items())}."


def _throughput(arms: Sequence[Arm]) -> Table:
    rows, remarks = [], []
    for arm in arms:
        speed = arm.part("throughput")
        ratio = bounded(speed.get("ratio"), speed.get("ci95"))
        use = arm.number("throughput", "mfu")
        rows.append(
            (
                arm.name,
                figures.counted(arm.number("throughput", "tokens_per_second") or arm.number("tokens_per_second")),
                figures.ratio(ratio.value)
                + ("" if ratio.low is None else f" {figures.interval(ratio.low, ratio.high, 2)}"),
                figures.ratio(arm.number("throughput", "ideal_ratio")),
                figures.MISSING if use is None else f"{100 * use:.0f}\u00a0%",
                figures.fixed(arm.number("throughput", "step_ms"), 1),
                figures.fixed(arm.number("throughput", "process_ms"), 1),
                figures.fixed(arm.number("throughput", "jitter"), 2),
                figures.fixed(arm.number("throughput", "block_cv")),
            )
        )
        if speed.get("note"):
            remarks.append(f"{arm.name}: {speed['note']}.")
    columns = (
        "arm",
        "tokens/s",
        "ratio to the baseline",
        "ideal ratio",
        "MFU",
        "step (ms)",
        "CPU time (ms)",
        "jitter",
        "block CV",
    )
    note = (
        "The ideal ratio is what FLOPs alone would give; a measured ratio far below it speaks of the kernels, "
        "not of the idea."
    )
    said = " ".join([note, *remarks])
    return Table(caption="Training throughput", columns=columns, rows=rows, numeric=range(1, 9), note=said)


def _ledger(study: Study) -> list[Part]:
    ledgers = {arm.name: [mapping(row) for row in items(arm.raw.get("ledger"))] for arm in study.arms}
    mechanisms = list(dict.fromkeys(str(row.get("mechanism", "")) for rows in ledgers.values() for row in rows))
    lines = [(name, *(_of_mechanism(ledgers[arm.name], name) for arm in study.arms)) for name in mechanisms]
    lines.append(("all", *(figures.counted(_sum(ledgers[arm.name], "model")) for arm in study.arms)))
    names = [arm.name for arm in study.arms]
    caption = "Model FLOPs a token, forward, by mechanism"
    across = Table(caption=caption, columns=("mechanism", *names), rows=lines, numeric=range(1, len(names) + 1))
    return [across, *(_own_ledger(arm, ledgers[arm.name]) for arm in study.arms if ledgers[arm.name])]


def _own_ledger(arm: Arm, rows: list[Mapping[str, Any]]) -> Details:
    kinds = ("parameters", "model", "hardware", "elementwise")
    lines = [
        (str(row.get("mechanism", "")), *(figures.exact(figures.number_or_none(row.get(kind))) for kind in kinds))
        for row in rows
    ]
    lines.append(("all", *(figures.exact(_sum(rows, kind)) for kind in kinds)))
    columns = ("mechanism", "parameters", "model FLOPs", "hardware FLOPs", "element-wise")
    table = Table(caption=f"{arm.name}: forward, per token", columns=columns, rows=lines, numeric=range(1, 5))
    return Details(title=f"Full ledger of {arm.name}", parts=[table])


def _of_mechanism(rows: list[Mapping[str, Any]], name: str) -> str:
    own = [row for row in rows if str(row.get("mechanism", "")) == name]
    return figures.counted(_sum(own, "model")) if own else figures.MISSING


def _sum(rows: list[Mapping[str, Any]], kind: str) -> float:
    return sum(figures.number_or_none(row.get(kind)) or 0.0 for row in rows)


def _state(study: Study) -> Chart:
    series = [
        Series(
            name=arm.name,
            x=[float(context) for context, _ in arm.state_sizes],
            y=[size for _, size in arm.state_sizes],
            colour=arm.colour,
            marker=arm.marker,
            line="solid",
            tips=[f"{arm.name} at {context} tokens\n{figures.byte_count(size)}" for context, size in arm.state_sizes],
        )
        for arm in study.arms
        if arm.state_sizes
    ]
    return Chart(
        key="state",
        title="Decoding state against context",
        description="; ".join(
            f"{arm.name} {figures.byte_count(arm.state_at(None))}" for arm in study.arms if arm.state_sizes
        ),
        x=Axis(title="context in tokens (log scale)", log=True, base=2, form=lambda v: f"{v:.0f}"),
        y=Axis(title="bytes a sequence (log scale)", log=True, base=2, form=figures.byte_count),
        series=series,
        note="What a sequence keeps in memory while it is generated. Arms with equal state lie on one line.",
    )
