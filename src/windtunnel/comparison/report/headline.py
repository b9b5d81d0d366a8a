"""The verdict: one finding an arm, the speedups as a forest plot, and the seeds behind them."""

from collections.abc import Mapping
from typing import Any

from windtunnel.comparison.report import wording
from windtunnel.comparison.report.reading import (
    MEASURE_NAMES,
    MEASURES,
    Arm,
    Comparison,
    Speedup,
    Study,
    bounded,
    dig,
    items,
    mapping,
)
from windtunnel.report import (
    Axis,
    Chart,
    Figure,
    Finding,
    Guide,
    Items,
    Notice,
    Part,
    Row,
    RowChart,
    RowGroup,
    Section,
    Series,
    Tone,
    figures,
)


def verdict_section(study: Study) -> Section:
    """Findings, best first and the baseline last, then the forest plot."""
    parts: list[Part] = [_finding(study, arm) for arm in wording.ranked(study)]
    warning = _warning(study)
    if warning is not None:
        parts.insert(0, warning)
    if study.comparisons:
        parts.append(forest(study))
    lead = (
        "A ratio above 1 favours the variant: it reaches the baseline's final loss with that many times "
        "fewer tokens, FLOPs "
        "or seconds. The percent beside it is what that saves, 1 − 1/S. Brackets are 95 % intervals."
    )
    return Section(key="verdict", title="Verdict", lead=lead, parts=parts)


def seeds_section(study: Study) -> Section | None:
    """Paired differences seed by seed, and the speedup at earlier targets."""
    parts: list[Part] = []
    paired = [(one, _paired(study, one.variant)) for one in study.comparisons]
    if any(differences for _, differences in paired):
        parts.append(
            _differences(study, [(one, seeds) for one, seeds in paired if seeds or one.delta.value is not None])
        )
    targets = _targets(study)
    if targets is not None:
        parts.append(targets)
    if not parts:
        return None
    lead = (
        "Seed s gives every arm the same data order, so arms are compared pair by pair; open dots are the single seeds."
    )
    return Section(key="seeds", title="How sure, and since when", short="Seeds and targets", lead=lead, parts=parts)


def forest(study: Study) -> RowChart:
    """Every arm's speedups in tokens, FLOPs and time over one logarithmic axis."""
    margin = study.number("settings", "margin")
    edges = None if margin is None or margin <= 0 else (1 / (1 + margin), 1 + margin)
    band = "" if edges is None else f" The shaded band, {edges[0]:.3f} to {edges[1]:.3f}, counts as no difference."
    return RowChart(
        key="speedups",
        title="How many times less is needed to reach the baseline's loss",
        description=f"Speedups in tokens, FLOPs and time with 95 % intervals; above 1 favours the variant.{band}",
        x=Axis(title="speedup to the baseline's final loss (log scale)", log=True, form=_times),
        groups=[_group(one) for arm in wording.ranked(study) if (one := study.comparison(arm))],
        reference=1.0,
        margin=edges,
        sides=("needs more", "needs less"),
        note=(
            f"Time holds for the machine and kernels named under “Data and machine”.{band} Arrows run on "
            "beyond the axis or mark bounds."
        ),
    )


def _group(comparison: Comparison) -> RowGroup:
    grade = f", grade {comparison.grade}" if comparison.grade else ""
    return RowGroup(
        title=comparison.variant.name,
        note=f"{comparison.verdict}{grade}",
        rows=[_speedup_row(comparison, measure) for measure in MEASURES],
    )


def _speedup_row(comparison: Comparison, measure: str) -> Row:
    speedup, arm, name = comparison.speedup(measure), comparison.variant, MEASURE_NAMES[measure]
    if speedup is None:
        return Row(label=name, value=comparison.refusal(measure) or wording.FLAT)
    said = wording.speedup_words(speedup)
    return Row(
        label=name,
        value=said,
        point=speedup.value,
        low=speedup.low,
        high=speedup.high,
        colour=arm.colour,
        marker=arm.marker,
        tip=f"{arm.name}, {name}\n{said}",
    )


def _finding(study: Study, arm: Arm) -> Finding:
    comparison = study.comparison(arm)
    subtitle = arm.label if arm.label != arm.name else ""
    text = wording.sentence(study, arm)
    if comparison is None:
        word = "baseline" if arm.is_baseline else "failed" if arm.failed else "not compared"
        tone: Tone = "bad" if word == "failed" else "plain"
        return Finding(
            title=arm.name,
            subtitle=subtitle,
            word=word,
            tone=tone,
            text=text,
            colour=arm.colour,
            remarks=_measured(arm),
        )
    difference = f"Δ {wording.estimate_words(comparison.delta, signed=True)} nats a token at equal tokens"
    grade = f", grade {comparison.grade}" if comparison.grade else ""
    return Finding(
        title=arm.name,
        subtitle=subtitle,
        word=f"{comparison.verdict}{grade}",
        tone=wording.tone(comparison.verdict),
        text=text,
        colour=arm.colour,
        figures=[_figure(comparison, measure) for measure in MEASURES],
        remarks=[f"{difference}.", *wording.remarks(comparison)],
    )


def _measured(arm: Arm) -> list[str]:
    if arm.failed:
        return []
    loss = wording.estimate_words(arm.loss)
    return [f"Final loss {loss} nats a token, {figures.fixed(arm.number('bits_per_byte'))} bits a byte."]


def _figure(comparison: Comparison, measure: str) -> Figure:
    speedup = comparison.speedup(measure)
    small = [wording.speedup_interval(speedup), wording.speedup_saving(speedup)]
    if speedup is None or speedup.censored:
        small = ["a bound" if speedup is not None else ""]
    value = wording.speedup_value(speedup)
    return Figure(
        name=MEASURE_NAMES[measure],
        value=value if speedup is not None else figures.MISSING,
        small="\n".join(line for line in small if line) or value,
        tone=_direction(speedup),
    )


def _direction(speedup: Speedup | None) -> Tone:
    """Coloured only where the interval (or the bounds) leaves one side of 1."""
    if speedup is None:
        return "unknown"
    touching = 1e-9 if speedup.censored else 0.0
    if speedup.low is not None and speedup.low > 1 - touching:
        return "good"
    if speedup.high is not None and speedup.high < 1 + touching:
        return "bad"
    return "unknown"


def _warning(study: Study) -> Notice | None:
    """Failures first of all: a result that misses an arm must say so where it is read."""
    failures = [mapping(one) for one in items(study.raw.get("failures"))]
    if not failures:
        return None
    lines = [
        f"{one.get('arm', 'an arm')}: {one.get('job', 'a job')} failed ({one.get('error', 'no message')})."
        for one in failures
    ]
    return Notice(title="Not everything ran", kind="warning", parts=[Items(items=lines)])


def _paired(study: Study, arm: Arm) -> list[float]:
    base = study.baseline
    ours, theirs = items(dig(arm.raw, "loss", "seeds")), items(dig(base.raw, "loss", "seeds")) if base else ()
    if len(ours) != len(theirs):
        return []
    pairs = [(figures.number_or_none(v), figures.number_or_none(b)) for v, b in zip(ours, theirs, strict=True)]
    return [v - b for v, b in pairs if v is not None and b is not None]


def _differences(study: Study, paired: list[tuple[Comparison, list[float]]]) -> RowChart:
    rows = [
        Row(
            label=one.variant.name,
            value=wording.estimate_words(one.delta, signed=True),
            point=one.delta.value,
            low=one.delta.low,
            high=one.delta.high,
            dots=seeds,
            colour=one.variant.colour,
            marker=one.variant.marker,
            tip=(
                f"{one.variant.name}\n{figures.signed(one.delta.value, 4)} nats a token, n = "
                f"{figures.plain(one.raw.get('n'))}"
            ),
        )
        for one, seeds in paired
    ]
    return RowChart(
        key="differences",
        title="Difference of loss to the baseline at equal tokens",
        description=(
            "Mean paired difference with its 95 % interval over seeds, and each seed as an open dot; below 0 is better."
        ),
        x=Axis(title="loss minus the baseline's (nats a token)", form=lambda v: figures.signed(v, 3), signed=True),
        groups=[RowGroup(title="Paired by seed", rows=rows)],
        reference=0.0,
        sides=("better", "worse"),
        note=_power(study),
    )


def _power(study: Study) -> str:
    """What the study said it could see before it ran, and what the noise that it measured says."""
    power = mapping(study.raw.get("power"))
    announced = mapping(power.get("announced")) or (power if power.get("prior") else {})
    before = _visible(announced, "Said before it ran: this study can see", "assumed")
    after = "" if power.get("prior") else _visible(power, "By the noise that it measured it could see", "measured")
    return " ".join(part for part in (before, after) if part)


def _visible(power: Mapping[str, Any], start: str, source: str) -> str:
    delta, speedup = (figures.number_or_none(power.get(f"detectable_{name}")) for name in ("delta", "speedup"))
    if delta is None:
        return ""
    times = "" if speedup is None else f", a speedup of about {figures.ratio(speedup)} ({figures.saving(speedup)})"
    sigma = figures.number_or_none(power.get("sigma"))
    noise = "" if sigma is None else f" (s.d. of a difference {figures.fixed(sigma)}, {source})"
    return f"{start} a difference of {figures.fixed(delta)} nats{times}{noise}."


def _targets(study: Study) -> Chart | None:
    """Speedup at the baseline's loss at earlier horizons: rising means that the gain grows with training."""
    series = []
    for one in study.comparisons:
        points = [
            (figures.number_or_none(mapping(t).get("fraction")), mapping(t)) for t in items(one.raw.get("s_targets"))
        ]
        known = [(f, bounded(t.get("value"), t.get("ci95"))) for f, t in points if f]
        known = [(f, e) for f, e in known if e.value is not None]
        if known:
            series.append(
                Series(
                    name=one.variant.name,
                    x=[f for f, _ in known],
                    y=[e.value or 0.0 for _, e in known],
                    low=[e.low for _, e in known],
                    high=[e.high for _, e in known],
                    colour=one.variant.colour,
                    marker=one.variant.marker,
                    line="solid",
                    tips=[
                        f"{one.variant.name} at {_share(f)}\n{figures.ratio(e.value)} "
                        f"{figures.interval(e.low, e.high, 2)}, {figures.saving(e.value)}"
                        for f, e in known
                    ],
                )
            )
    if not any(len(one.x) > 1 for one in series):
        return None
    places = sorted({share for one in series for share in one.x})
    return Chart(
        key="targets",
        title="Does the gain grow or fade during training?",
        description="Token speedup to the loss that the baseline has at earlier horizons, with 95 % intervals.",
        x=Axis(title="target, as a share of the baseline's tokens", log=True, form=_share, places=places),
        y=Axis(title="token speedup (log scale)", log=True, form=_times),
        series=series,
        guides=[Guide(axis="y", value=1.0, label="no difference")],
        note="Flat: a multiplicative gain. Falling towards 1: a head start only. Rising: the gain grows with training.",
    )


def _share(fraction: float) -> str:
    return f"D/{1 / fraction:.3g}" if fraction < 1 else "D" if fraction == 1 else f"{fraction:.3g} D"


def _times(value: float) -> str:
    return f"{value:.3g}x"
