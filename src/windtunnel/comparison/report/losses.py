"""Loss against tokens, FLOPs and seconds."""

from collections.abc import Callable
from dataclasses import dataclass

from windtunnel.comparison.report.reading import Arm, Study, items, mapping
from windtunnel.report import Axis, Chart, Guide, Part, Section, Series, Table, Tabs, figures
from windtunnel.report.scales import limits

_NOTE = (
    "Markers are horizons: runs whose learning rate has fully decayed, held-out loss, 95 % interval over "
    "seeds. Faint lines "
    "are within-run: the smoothed training loss of the longest run, not decayed until its end, so no speedup "
    "is read from them."
)


@dataclass(frozen=True, kw_only=True)
class _Cost:
    """One x axis: what a token costs in it."""

    key: str
    tab: str
    title: str
    form: Callable[[float], str]
    of_token: Callable[[Arm], float | None]


def _speed(arm: Arm) -> float | None:
    speed = arm.number("tokens_per_second") or arm.number("throughput", "tokens_per_second")
    return 1 / speed if speed else None


COSTS = (
    _Cost(key="tokens", tab="Tokens", title="training tokens", form=figures.counted, of_token=lambda arm: 1.0),
    _Cost(
        key="flops",
        tab="FLOPs",
        title="model FLOPs of training",
        form=figures.counted,
        of_token=lambda arm: arm.number("flops_per_token"),
    ),
    _Cost(
        key="seconds",
        tab="Seconds",
        title="training time at the measured throughput",
        form=figures.duration,
        of_token=_speed,
    ),
)


def loss_section(study: Study) -> Section | None:
    """The same losses over three axes, and the whole of each run."""
    charts = [(cost.tab, chart) for cost in COSTS if (chart := _near(study, cost)) is not None]
    whole = _whole(study)
    if whole is not None:
        charts.append(("Whole run", whole))
    if not charts:
        return None
    lead = (
        "The same runs three times: what counts as cheap depends on whether data, arithmetic or this machine's "
        "clock is scarce."
    )
    return Section(
        key="loss",
        title="Loss against tokens, FLOPs and time",
        short="Loss",
        lead=lead,
        parts=[Tabs(title="Loss against", tabs=charts), *_by_set(study)],
    )


def _by_set(study: Study) -> list[Part]:
    """The final loss on each set of the data, where there are several."""
    names = list(dict.fromkeys(str(name) for arm in study.arms for name in arm.part("sets")))
    rows = [
        (
            name,
            *(
                f"{figures.fixed(arm.number('sets', name, 'mean'))} {figures.interval(*_ends(arm, name))}"
                for arm in study.arms
            ),
        )
        for name in names
    ]
    columns = ("set", *(arm.name for arm in study.arms))
    note = "Held-out nats a token at the end of the budget, 95 % interval over seeds; not paired."
    table = Table(caption="Loss by set", columns=columns, rows=rows, numeric=range(1, len(columns)), note=note)
    return [table] if rows else []


def _ends(arm: Arm, name: str) -> tuple[float | None, float | None]:
    low, high = (items(mapping(arm.part("sets").get(name)).get("ci95")) or [None, None])[:2]
    return figures.number_or_none(low), figures.number_or_none(high)


def _near(study: Study, cost: _Cost) -> Chart | None:
    """Zoomed on the decayed horizons; every arm whose cost is known."""
    arms = [(arm, one) for arm in study.arms if arm.horizons and (one := cost.of_token(arm))]
    if not arms:
        return None
    low, high = limits(
        [v for arm, _ in arms for _, _, e in arm.horizons for v in (e.value, e.low, e.high) if v is not None]
    )
    within = [series for arm, one in arms for series in _within(arm, one, cost)]
    first = min(tokens * one for arm, one in arms for _, tokens, _ in arm.horizons)
    last = max(tokens * one for arm, one in arms for _, tokens, _ in arm.horizons)
    base = study.baseline
    target = base.loss.value if base else None
    return Chart(
        key=f"loss-{cost.key}",
        title=f"Held-out loss against {cost.title}",
        description="; ".join(_described(arm) for arm, _ in arms),
        x=Axis(title=f"{cost.title} (log scale)", log=True, form=cost.form, limits=(first * 0.78, last * 1.12)),
        y=Axis(title="loss (nats a token)", form=figures.fixed, limits=(low, high + 0.12 * (high - low))),
        series=[*within, *(_horizons(arm, one, cost) for arm, one in arms)],
        guides=[]
        if target is None or base is None
        else [Guide(axis="y", value=target, label=f"final loss of {base.name}")],
        note=_NOTE,
    )


def _horizons(arm: Arm, cost_of_token: float, cost: _Cost) -> Series:
    points = arm.horizons
    return Series(
        name=arm.name,
        x=[tokens * cost_of_token for _, tokens, _ in points],
        y=[loss.value or 0.0 for _, _, loss in points],
        low=[loss.low for _, _, loss in points],
        high=[loss.high for _, _, loss in points],
        colour=arm.colour,
        marker=arm.marker,
        line="solid",
        tips=[
            f"{arm.name}, decayed at {figures.counted(tokens)} tokens\n{figures.fixed(loss.value)} "
            f"{figures.interval(loss.low, loss.high)} nats"
            f"\n{cost.form(tokens * cost_of_token)} {cost.tab.lower() if cost.key != 'seconds' else 'of training'}"
            for _, tokens, loss in points
        ],
    )


def _within(arm: Arm, cost_of_token: float, cost: _Cost) -> list[Series]:
    """The run's own curve as a faint line, with a band where bounds are known."""
    curve = arm.part("curve")
    rows = list(zip(*(items(curve.get(name)) for name in ("tokens", "loss")), strict=False))
    points = [
        (k, float(t) * cost_of_token, float(loss)) for k, (t, loss) in enumerate(rows) if _known(t) and _known(loss)
    ]
    if not points:
        return []
    x, y = [p[1] for p in points], [p[2] for p in points]
    tips = [
        f"{arm.name}, within-run\n{figures.fixed(b, 2)} nats (training), {cost.form(a)}"
        for a, b in zip(x, y, strict=True)
    ]
    low, high = items(curve.get("low")), items(curve.get("high"))
    series = [Series(name=arm.name, x=x, y=y, colour=arm.colour, line="faint", tips=tips)]
    if len(low) == len(high) == len(rows):
        bounds = [(figures.number_or_none(low[k]), figures.number_or_none(high[k])) for k, _, _ in points]
        band = Series(
            name=arm.name, x=x, y=y, low=[b[0] for b in bounds], high=[b[1] for b in bounds], colour=arm.colour
        )
        series.insert(0, band)
    return series


def _whole(study: Study) -> Chart | None:
    cost = COSTS[0]
    arms = [arm for arm in study.arms if _within(arm, 1.0, cost)]
    if not arms:
        return None
    series = [series for arm in arms for series in _within(arm, 1.0, cost)]
    series += [_horizons(arm, 1.0, cost) for arm in arms if arm.horizons]
    return Chart(
        key="loss-whole",
        title="The whole run, within-run",
        description="Smoothed training loss of the longest run of each arm, mean over seeds, from its start.",
        x=Axis(title="training tokens (log scale)", log=True, form=figures.counted),
        y=Axis(title="loss (nats a token)", form=figures.fixed),
        series=series,
        note=_NOTE,
    )


def _described(arm: Arm) -> str:
    _, tokens, loss = arm.horizons[-1]
    return f"{arm.name} ends at {figures.fixed(loss.value)} nats after {figures.counted(tokens)} tokens"


def _known(value: object) -> bool:
    return figures.number_or_none(value) is not None
