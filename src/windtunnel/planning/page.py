"""A plan's page: one file that opens from disk."""

from windtunnel.planning import tables
from windtunnel.planning.basis import MEANINGS
from windtunnel.planning.plan import Plan, step_basis
from windtunnel.planning.published import cases
from windtunnel.planning.step import Step
from windtunnel.report import (
    Axis,
    Bar,
    BarChart,
    Chart,
    Details,
    Facts,
    Figure,
    Finding,
    Guide,
    Section,
    Series,
    colour,
    figures,
    marker,
    page,
)

_GIB = 2**30


def render(plan: Plan, title: str) -> str:
    """The page; the same plan gives the same text."""
    task = plan.task
    return page(
        "A plan",
        [_answer(plan), _memory(plan), _time(plan), _traffic(plan), _serving(plan), _basis(plan), _held()],
        kicker="windtunnel plan",
        summary=f"{title}: {tables.many(task.facts.ledger.parameters.n_total)} parameters, {task.batch:,} sequences of "
        f"{task.facts.length:,} tokens a step.",
        footer="No device was used: what is modelled rests on the assumptions listed here.",
    )


def _answer(plan: Plan) -> Section:
    chosen, basis = plan.step, step_basis(plan.step)
    spare = plan.task.usable - chosen.bytes
    finding = Finding(
        title=chosen.layout.mesh.words,
        word=basis,
        tone="plain",
        text=f"{chosen.layout.microbatch} sequences of a device at a time, {chosen.layout.recompute:g} of the forward "
        f"pass done twice. {tables.size(spare)} of {tables.size(plan.task.usable)} on a device stay free. Training on "
        f"{tables.many(plan.tokens)} tokens takes {tables.span(plan.seconds)}.",
        figures=[
            Figure(name="a step", value=tables.seconds(chosen.seconds), small=basis),
            Figure(name="MFU", value=tables.percent(chosen.mfu), small=f"HFU {tables.percent(chosen.hfu)}"),
            Figure(name="memory", value=tables.size(chosen.bytes), small="of a device"),
        ],
    )
    facts = [
        ("tokens a second", f"{figures.counted(chosen.tokens_per_second)} ({basis})"),
        ("device-hours", f"{figures.counted(plan.device_hours)} ({basis})"),
        *([("cost", f"{figures.counted(plan.cost)} ({basis})")] if plan.cost is not None else []),
        ("parameters", f"{figures.exact(plan.task.facts.ledger.parameters.n_total)} (counted)"),
    ]
    return Section(
        key="answer",
        title="The plan",
        lead="The mesh that was asked for, or the fastest that fits. Every figure says where it comes from.",
        parts=[finding, Facts(facts=facts), tables.operations(plan)],
    )


def _memory(plan: Plan) -> Section:
    steps = _distinct(plan)
    names = list(dict.fromkeys(part.name for step in steps for part in step.memory))
    bars = []
    for step in steps:
        sizes = {part.name: part.size for part in step.memory}
        parts = [sizes.get(name, 0.0) / _GIB for name in names]
        bars.append(Bar(label=_label(step), value=tables.size(step.bytes), parts=parts))
    chart = BarChart(
        key="memory-parts",
        title="Memory of a device by mesh",
        description="; ".join(f"{bar.label}: {bar.value}" for bar in bars),
        x=Axis(title="GiB of the fullest device", form=_gib),
        names=names,
        bars=bars,
        guide=Guide(axis="x", value=plan.task.usable / _GIB, label="can be used"),
        note="The first is the plan; r is the share that is recomputed.",
    )
    return Section(
        key="memory",
        title="Memory",
        lead="Parameters, gradients, moments and activations are counted on the model; buffers are assumed.",
        parts=[chart, tables.memory(plan)],
    )


def _time(plan: Plan) -> Section:
    names = ("matrix products", "waiting for transfers", "optimiser", "pipeline's bubble")
    bars = [
        Bar(
            label=_label(step),
            value=tables.seconds(step.modelled),
            parts=(step.products, step.waits, step.update, step.bubble),
        )
        for step in _distinct(plan)
    ]
    observed = plan.step.seconds if step_basis(plan.step) == "given" else None
    chart = BarChart(
        key="time-parts",
        title="Time of a step by mesh, as modelled",
        description="; ".join(f"{bar.label}: {bar.value}" for bar in bars),
        x=Axis(title="seconds", form=_three),
        names=names if any(bar.parts[3] for bar in bars) else names[:3],
        bars=bars,
        guide=None if observed is None else Guide(axis="x", value=observed, label="as observed"),
    )
    return Section(
        key="time",
        title="Time",
        lead=f"Products run at {plan.task.settings.utilisation:g} of the peak, which is assumed, not known.",
        parts=[chart, tables.step(plan), tables.meshes(plan)],
    )


def _traffic(plan: Plan) -> Section:
    transfers = plan.step.traffic
    axes = list(dict.fromkeys(each.axis for each in transfers))
    places = [("in an island", False), ("over the network", True)]
    bars = [
        Bar(
            label=label,
            value=tables.size(sum(each.sent for each in transfers if each.network is network)),
            parts=[
                sum(each.sent for each in transfers if each.axis == axis and each.network is network) / _GIB
                for axis in axes
            ],
        )
        for label, network in places
    ]
    chart = BarChart(
        key="traffic-axes",
        title="What a device sends in a step",
        description="; ".join(f"{bar.label}: {bar.value}" for bar in bars),
        x=Axis(title="GiB sent by one device", form=_gib),
        names=axes,
        bars=bars,
    )
    return Section(
        key="traffic",
        title="Traffic",
        lead="An island is what fast links join; everything else goes through the hosts' network.",
        parts=[chart, tables.traffic(plan)] if transfers else [tables.traffic(plan)],
    )


def _serving(plan: Plan) -> Section:
    served = plan.serving
    speed = Chart(
        key="serving-speed",
        title="Tokens a second against the time of a token",
        description="Throughput of one copy against the time between two tokens, by batch",
        x=Axis(title="seconds between two tokens (log scale)", log=True, form=_three),
        y=Axis(title="tokens a second of one copy (log scale)", log=True, form=figures.counted),
        series=[
            Series(
                name="batches",
                x=[batch.seconds for batch in served.batches],
                y=[batch.tokens_per_second for batch in served.batches],
                colour=colour(1),
                marker=marker(0),
                line="solid",
                labels=[figures.exact(batch.sequences) for batch in served.batches],
                tips=[
                    f"batch {batch.sequences:,}, {batch.in_flight:,} under way\n"
                    f"{tables.seconds(batch.seconds)} a token\n"
                    f"{figures.counted(batch.tokens_per_second)} tokens a second\nbound by {batch.bound}"
                    for batch in served.batches
                ],
            )
        ],
        note="Numbers at the points: sequences decoded together. Beyond the last one the states do not fit.",
    )
    model, element = plan.task.facts.model, plan.task.settings.element
    lengths = sorted(plan.task.facts.ledger.state_bytes)
    state = [model.state_bytes(length, element) for length in lengths]
    parts: list[Chart] = [speed]
    if all(state):
        parts.append(_states(lengths, state, plan.serving.weights * served.mesh.devices))
    return Section(
        key="serving",
        title="Serving",
        lead="The least that a token can take: weights and states read once at the published bandwidth.",
        parts=[*parts, tables.served(served)],
    )


def _states(lengths: list[int], state: list[int], weights: float) -> Chart:
    return Chart(
        key="serving-state",
        title="State of one sequence",
        description="Bytes of decoding state in the working precision against tokens seen",
        x=Axis(title="tokens seen (log scale)", log=True, form=figures.exact, base=2),
        y=Axis(title="bytes (log scale)", log=True, form=tables.size, base=2),
        series=[Series(name="state", x=lengths, y=state, colour=colour(2), marker=marker(1), line="solid")],
        note=f"The weights of one copy are {tables.size(weights)}.",
    )


def _basis(plan: Plan) -> Section:
    return Section(
        key="basis",
        title="What this rests on",
        short="Basis",
        parts=[Facts(facts=[(name, words) for name, words in MEANINGS.items()], words=True), tables.inputs(plan)],
    )


def _held() -> Section:
    return Section(
        key="held",
        title="Published cases",
        lead="The same formulas on the inputs that papers print; what does not come out is shown, too.",
        parts=[Details(title="The cases", parts=[tables.published(cases())])],
    )


def _distinct(plan: Plan) -> list[Step]:
    others = [step for step in plan.others if step.layout != plan.step.layout]
    return [plan.step, *others[: tables.SHOWN - 1]]


def _label(step: Step) -> str:
    again = f" r={step.layout.recompute:g}" if step.layout.recompute else ""
    return step.layout.mesh.words + again


def _gib(value: float) -> str:
    return f"{value:.3g}"


def _three(value: float) -> str:
    return f"{value:.3g}"
