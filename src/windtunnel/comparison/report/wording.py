"""The words for speedups, verdicts and arms, shared by page, terminal and Markdown."""

from windtunnel.comparison.report.reading import (
    MEASURE_NAMES,
    MEASURES,
    Arm,
    Comparison,
    Estimate,
    Speedup,
    Study,
    items,
)
from windtunnel.report import Tone, figures

TONES: tuple[tuple[str, Tone], ...] = (
    ("mixed", "mixed"),
    ("depends on matching", "mixed"),
    ("wins, small", "fair"),
    ("wins small", "fair"),
    ("loses, small", "poor"),
    ("loses small", "poor"),
    ("wins", "good"),
    ("loses", "bad"),
    ("equivalent", "even"),
)
_ORDER: tuple[Tone, ...] = ("good", "fair", "mixed", "even", "unknown", "poor", "bad")
FLAT = "no estimate"


def tone(verdict: str) -> Tone:
    """How a verdict is coloured; anything capped or unknown stays neutral."""
    words = verdict.lower()
    return next((kind for start, kind in TONES if words.startswith(start)), "unknown")


def ranked(study: Study) -> list[Arm]:
    """The arms as they are read: winners first, then what is open, losers, failures, and the baseline last."""
    return sorted(study.arms, key=lambda arm: _rank(study, arm))


def _rank(study: Study, arm: Arm) -> tuple[int, float]:
    comparison = study.comparison(arm)
    if comparison is None:
        return (len(_ORDER) + (1 if arm.is_baseline else 0), 0.0)
    return (_ORDER.index(tone(comparison.verdict)), comparison.delta.value or 0.0)


def speedup_value(speedup: Speedup | None) -> str:
    """`1.31x`; `< 1.00x`, `> 4.00x` or both ends where only bounds are known; or `no estimate`."""
    if speedup is None:
        return FLAT
    if not speedup.censored:
        return figures.ratio(speedup.value)
    if speedup.low is not None and speedup.high is not None:
        return f"{figures.ratio(speedup.low)} to {figures.ratio(speedup.high)}"
    if speedup.low is not None:
        return f"> {figures.ratio(speedup.low)}"
    return f"< {figures.ratio(speedup.high)}" if speedup.high is not None else "not reached"


def speedup_interval(speedup: Speedup | None, form: str = "[{}, {}]") -> str:
    """The 95 % interval in a form; empty where there is none or only bounds."""
    if speedup is None or speedup.censored or (speedup.low is None and speedup.high is None):
        return ""
    low, high = figures.fixed(speedup.low, 2), figures.fixed(speedup.high, 2)
    if speedup.low is None or speedup.high is None:
        return f"up to {high}" if speedup.low is None else f"from {low}"
    return form.format(low, high)


def speedup_saving(speedup: Speedup | None) -> str:
    """Percent saved, the companion of every ratio; empty where the ratio is no estimate."""
    return "" if speedup is None or speedup.censored else figures.saving(speedup.value)


def estimate_words(estimate: Estimate, *, digits: int = 3, signed: bool = False) -> str:
    """Value and interval, the interval left out where it is not known."""
    value = (figures.signed if signed else figures.fixed)(estimate.value, digits)
    known = estimate.low is not None or estimate.high is not None
    return f"{value} {figures.interval(estimate.low, estimate.high, digits)}" if known else value


def speedup_words(speedup: Speedup | None) -> str:
    """Ratio, interval and percent saved in one line."""
    if speedup is not None and speedup.censored:
        return f"{speedup_value(speedup)} (a bound)"
    estimate = f"{speedup_value(speedup)} {speedup_interval(speedup)}".rstrip()
    return " · ".join(word for word in (estimate, speedup_saving(speedup)) if word)


def sentence(study: Study, arm: Arm) -> str:
    """One plain sentence on an arm; the study's own where it has one."""
    base = study.baseline
    against = base.label if base else "the baseline"
    comparison = study.comparison(arm)
    if arm.is_baseline:
        return "The baseline: every other arm is measured against it."
    if arm.failed:
        return "Did not finish, so nothing is said about it; see the failures below."
    if comparison is None:
        return f"Was trained, but not compared with {against}."
    return str(comparison.raw.get("sentence") or "") or _made_sentence(comparison, against)


def _made_sentence(comparison: Comparison, against: str) -> str:
    name, tokens = comparison.variant.label, comparison.speedup("s_tok")
    if tokens is None:
        difference = figures.signed(comparison.delta.value)
        return (
            f"{name} differs from {against} by {difference} nats a token at equal tokens; no speedup could be "
            "estimated."
        )
    if tokens.censored:
        return (
            f"{name} did not meet the loss of {against} between its shortest and longest runs "
            f"({speedup_value(tokens)} in tokens)."
        )
    known = [(MEASURE_NAMES[m], s) for m in MEASURES if (s := comparison.speedup(m)) is not None and not s.censored]
    parts = [f"{figures.ratio(s.value)} in {measure} ({figures.saving(s.value)})" for measure, s in known]
    return f"To the loss of {against}, {name} is {', '.join(parts)}."


def remarks(comparison: Comparison) -> list[str]:
    """What must stand beside a verdict: caps, the product form, notes, how many seeds would decide."""
    raw = comparison.raw
    caps, told = [str(cap) for cap in items(raw.get("caps"))], str(raw.get("sentence") or "")
    said = [f"Capped: {'; '.join(caps)}."] if any(cap not in told for cap in caps) else []
    if raw.get("product"):
        said.append(f"{raw['product']}.")
    if raw.get("head_start"):
        said.append("The gain is a head start: it was larger at a quarter of the tokens.")
    said += [f"{str(note)[:1].upper()}{str(note)[1:]}." for note in items(raw.get("notes"))]
    needed = figures.number_or_none(raw.get("n_needed"))
    if needed is not None and "seeds" not in told:
        said.append(f"About {needed:.0f} seeds would be needed to decide.")
    return said


def arm_words(arm: Arm) -> str:
    """The arm's name, with a word where it is the baseline or its rate lies at the edge."""
    return f"{arm.name} (baseline)" if arm.is_baseline else arm.name


def rate_words(arm: Arm) -> str:
    """The chosen learning rate; `(edge)` where the sweep's best lies at an end of the grid."""
    text = figures.rate(arm.number("lr"))
    return f"{text} (edge)" if arm.raw.get("lr_at_edge") else text
