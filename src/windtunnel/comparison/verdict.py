"""From intervals to one word, a grade, and what would change them."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from windtunnel.comparison.power import required_seeds
from windtunnel.statistics import Interval, equivalent, t_quantile

FLOP_TOLERANCE = 0.02
MOST_BLOCK_CV = 0.10
LARGEST_GAP = 0.02

WINS, WINS_SMALL, LOSES, LOSES_SMALL = "wins", "wins, small", "loses", "loses, small"
EQUIVALENT, INCONCLUSIVE, MIXED = "equivalent", "inconclusive", "mixed"
PRELIMINARY, NO_VERDICT = "preliminary", "no verdict"


@dataclass(frozen=True)
class Evidence:
    """What stands behind a comparison, apart from its numbers.

    swept: every arm had its own learning-rate sweep. untuned: arms whose best rate is at an edge. second_knob: whether
    the verdict's sign holds when the other knob matches the parameters (None: not tried).
    """

    seeds: int
    swept: bool = True
    untuned: tuple[str, ...] = ()
    parameter_gap: float = 0.0
    horizons: int = 1
    tokens_per_parameter: float = 0.0
    second_knob: bool | None = None
    scales_agree: bool = True
    scales: int = 1
    flop_range: float = 1.0
    trend_against: bool = False
    datasets: int = 1
    ablated: bool = False
    second_implementation: bool = False
    self_test_failed: bool = False
    weak_baseline: bool = False


@dataclass(frozen=True)
class Verdict:
    """`word` is what is said; `uncapped` what the intervals alone would say; `caps` why they differ."""

    word: str
    uncapped: str
    grade: str
    caps: tuple[str, ...]
    would_change: tuple[str, ...]
    n_needed: int | None


def primary_track(flop_ratio: float) -> str:
    """iso_flop where FLOPs a token differ by more than 2 %, else iso_token. flop_ratio: variant / baseline."""
    return "iso_flop" if abs(flop_ratio - 1) > FLOP_TOLERANCE else "iso_token"


def time_refusal(block_cv: float | None, load: float | None = None) -> str:
    """Why the clock gives no verdict; empty if it does.

    block_cv: None for a single block. load: what wanted to run, a core of the machine; None where it is not known.
    """
    if block_cv is None:
        return "no verdict on time: one timing block gives no interval, two or more are needed"
    if block_cv > MOST_BLOCK_CV:
        return f"no verdict on time: timing blocks vary by {100 * block_cv:.0f} %, at most {100 * MOST_BLOCK_CV:.0f} %"
    if load is not None and load > 1:
        return f"no verdict on time: the machine was crowded, with a load of {load:.1f} a core, at most 1"
    return ""


def track_word(interval: Interval, narrow: Interval, margin: float) -> str:
    """The verdict of one track. interval: simultaneous 95 % of ln S; narrow: its 90 %, for equivalence."""
    if interval.low > margin:
        return WINS
    if interval.high < -margin:
        return LOSES
    if interval.low > 0:
        return WINS_SMALL
    if interval.high < 0:
        return LOSES_SMALL
    return EQUIVALENT if equivalent(narrow, margin) else INCONCLUSIVE


def disagreements(words: Mapping[str, str], evidence: Evidence) -> list[str]:
    """Why there is no single word: tracks with significantly opposite signs, the matching knob, the scale."""
    better = [track for track, word in words.items() if word in (WINS, WINS_SMALL)]
    worse = [track for track, word in words.items() if word in (LOSES, LOSES_SMALL)]
    found = [f"wins {', '.join(better)} but loses {', '.join(worse)}"] if better and worse else []
    if evidence.second_knob is False:
        found.append("depends on the knob that matches the parameters")
    return found if evidence.scales_agree else [*found, "depends on the scale"]


def caps(evidence: Evidence) -> list[str]:
    """Why a verdict can be no more than preliminary."""
    found = [f"{arm}: best learning rate at the edge of its sweep" for arm in evidence.untuned]
    if not evidence.swept:
        found.append("no learning-rate sweep for each arm")
    if evidence.seeds < 3:
        found.append(f"{evidence.seeds} seed{'s' if evidence.seeds > 1 else ''}, at least 3 are needed")
    if evidence.self_test_failed:
        found.append("the baseline against itself is told apart (A/A test fails)")
    if abs(evidence.parameter_gap) > LARGEST_GAP:
        found.append(f"parameters differ by {100 * evidence.parameter_gap:+.1f} %")
    if evidence.weak_baseline:
        found.append("the baseline is weaker than the registered reference")
    return found


def grade(evidence: Evidence) -> str:
    """Confidence from E (one seed) to A (scales, data sets, ablation, a second implementation)."""
    if evidence.seeds < 3 or not evidence.swept:
        return "E"
    enough = evidence.seeds >= 5 and evidence.horizons >= 3 and evidence.tokens_per_parameter >= 20
    if not (enough and evidence.second_knob):
        return "D"
    if evidence.scales < 3 or evidence.flop_range < 8 or evidence.trend_against:
        return "C"
    return "A" if evidence.datasets >= 2 and evidence.ablated and evidence.second_implementation else "B"


def seeds_needed(estimate: Interval, seeds: int, margin: float, alpha: float = 0.05) -> int | None:
    """Seeds that would see the observed ln S, or the margin if that is larger, at `alpha` with 80 % power.

    estimate: the 95 % interval of ln S from `seeds` paired seeds. None if there is no spread or the number is absurd.
    """
    if seeds < 2 or not math.isfinite(estimate.low):
        return None
    deviation = (estimate.value - estimate.low) / t_quantile(0.95, seeds - 1) * math.sqrt(seeds)
    if not deviation > 0:
        return None
    return required_seeds(max(abs(estimate.value), margin) / deviation, alpha=alpha)


def would_change(word: str, evidence: Evidence, needed: int | None) -> list[str]:
    """What to do next, most useful first."""
    steps = [f"a wider learning-rate sweep for {arm}" for arm in evidence.untuned]
    if word == INCONCLUSIVE and needed is not None:
        steps.append(f"about {needed} seeds" if needed > evidence.seeds else "a few more seeds")
    elif evidence.seeds < 5:
        steps.append("5 seeds")
    if evidence.horizons < 3:
        steps.append("a third horizon")
    if evidence.tokens_per_parameter < 20:
        steps.append(f"longer training ({evidence.tokens_per_parameter:.1f} tokens a parameter, 20 for grade C)")
    if evidence.second_knob is None:
        steps.append("parameters matched by the other knob")
    if evidence.scales < 3:
        steps.append("3 sizes over 8x FLOPs")
    return steps


def decide(
    primary: str,
    intervals: Mapping[str, Interval],
    narrow: Mapping[str, Interval],
    margin: float,
    evidence: Evidence,
    needed: int | None = None,
) -> tuple[Verdict, dict[str, str]]:
    """The verdict and each track's own word. First match: mixed, wins, loses, their small forms, equivalent."""
    words = {track: track_word(intervals[track], narrow[track], margin) for track in intervals}
    uncapped = MIXED if disagreements(words, evidence) else words.get(primary, INCONCLUSIVE)
    reasons = caps(evidence)
    word = uncapped
    if evidence.seeds < 2:
        word = NO_VERDICT
    elif reasons and uncapped != INCONCLUSIVE:
        word = PRELIMINARY
    needed = needed if uncapped == INCONCLUSIVE else None
    steps = tuple(would_change(uncapped, evidence, needed))
    return Verdict(word, uncapped, grade(evidence), tuple(reasons), steps, needed), words
