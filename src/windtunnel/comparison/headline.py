"""One entry of `results.json["comparisons"]`, from the losses of two arms and their ledgers."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from windtunnel.comparison.documents import DocumentLosses, combined_interval
from windtunnel.comparison.horizons import Horizons
from windtunnel.comparison.resampling import probability_of_improvement
from windtunnel.comparison.speedup import Local, Speedup, local, speedup
from windtunnel.comparison.verdict import Evidence, Verdict, decide, primary_track, seeds_needed, time_refusal
from windtunnel.comparison.wording import product, saved, sentence
from windtunnel.statistics import (
    Interval,
    holm,
    mean_interval,
    paired_p_value,
    sign_flip,
    simultaneous_level,
    standard_error,
    welch_interval,
)

TARGETS = (0.25, 0.5, 1.0, 2.0)
NAMES = {"iso_token": "s_tok", "iso_flop": "s_flop", "iso_time": "s_time"}


@dataclass(frozen=True)
class Throughput:
    """ln(tokens/s of the variant / of the baseline) over paired timing blocks, and the blocks' variation.

    error, block_cv: None where there is one block, which gives a ratio without an interval. load: the machine's, a
    core; None where it is not known.
    """

    log_ratio: float
    error: float | None
    blocks: int
    block_cv: float | None
    load: float | None = None

    @property
    def refusal(self) -> str:
        """Why it gives no verdict; empty if it does."""
        return time_refusal(self.block_cv, self.load)


@dataclass(frozen=True)
class Question:
    """What is asked of one pair of arms. flop_ratio: variant / baseline FLOPs a token; margin: 0.03 means 1.03x.

    alpha: chance of a false verdict on any of `comparisons`; intervals that are reported stay at 95 %.
    """

    variant: str
    baseline: str
    flop_ratio: float = 1.0
    margin: float = 0.03
    comparisons: int = 1
    estimator: str = "B"
    primary: str | None = None
    seed: int = 0
    alpha: float = 0.05

    @property
    def track(self) -> str:
        """The primary track: as registered, else by the ratio of FLOPs."""
        return self.primary or primary_track(self.flop_ratio)


def compare_arms(
    question: Question,
    horizons: Horizons,
    evidence: Evidence,
    documents: DocumentLosses | None = None,
    document_bytes: float | None = None,
    throughput: Throughput | None = None,
) -> dict[str, Any]:
    """The whole comparison as JSON values; an open end of an interval is None. `p_holm` comes from `adjust`.

    documents: per-document nats at D with tokens as weights; document_bytes: their UTF-8 bytes, for bits per byte.
    """
    tracks = _tracks(question, horizons, throughput, 0.95)
    verdict, words = _verdict(question, horizons, evidence, throughput, tracks)
    local_estimate = local(horizons, horizons.at_reference)
    entry: dict[str, Any] = {
        "variant": question.variant,
        "baseline": question.baseline,
        **_differences(question, horizons),
        **_documents(horizons, documents, document_bytes),
        **{name: speedup_json(tracks[track]) if track in tracks else None for track, name in NAMES.items()},
        "s_targets": _targets(question, horizons),
        "head_start": head_start(question, horizons),
        "saved": {"tokens": saved(tracks["iso_token"]), "flops": saved(tracks["iso_flop"]), "time": None},
        "slope": _slopes(local_estimate),
        "primary": question.track,
        "margin": question.margin,
        "verdict": verdict.word,
        "uncapped": verdict.uncapped,
        "tracks": words,
        "grade": verdict.grade,
        "caps": list(verdict.caps),
        "n_needed": verdict.n_needed,
        "would_change": list(verdict.would_change),
        "sentence": sentence(question.variant, question.baseline, verdict, question.track, tracks, words),
        "notes": _notes(tracks, throughput),
    }
    if throughput is not None:
        entry["saved"]["time"] = saved(tracks["iso_time"])
        entry["product"] = product(tracks["iso_token"], throughput.log_ratio, tracks["iso_time"])
    narrow = _tracks(question, horizons, throughput, _equivalence_level(question))[question.track].direction
    entry["equivalent_ci90"] = None if narrow is None else [_ratio(narrow.low), _ratio(narrow.high)]
    return entry


def adjust(comparisons: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The entries with Holm's adjusted p over all of them."""
    adjusted = holm([entry["p_value"] for entry in comparisons])
    return [entry | {"p_holm": p} for entry, p in zip(comparisons, adjusted, strict=True)]


def speedup_json(one: Speedup) -> dict[str, Any]:
    """A speedup as JSON: value and ci95 are None where they do not exist; `text` says it in any case."""
    return {
        "value": one.value,
        "ci95": one.ends,
        "censored": one.censored,
        "estimator": one.estimator,
        "text": one.text,
        "reason": one.reason,
    }


def head_start(question: Question, horizons: Horizons) -> bool:
    """Whether S at D/4 exceeds S at D by more than its interval: the gain is a head start."""
    if 0.25 not in horizons.fractions:
        return False
    early = _speedup(question, horizons, horizons.fractions.index(0.25), 0.95)
    late = _speedup(question, horizons, horizons.at_reference, 0.95)
    if early.value is None or late.value is None or early.log is None or late.log is None:
        return False
    return early.log.low > max(late.log.value, 0.0)


def _speedup(question: Question, horizons: Horizons, index: int, level: float) -> Speedup:
    return speedup(horizons, index, question.estimator, level, np.random.default_rng(question.seed))


def _tracks(question: Question, horizons: Horizons, throughput: Throughput | None, level: float) -> dict[str, Speedup]:
    """S on each track at one confidence level."""
    tokens = _speedup(question, horizons, horizons.at_reference, level)
    tracks = {"iso_token": tokens, "iso_flop": tokens.times(-math.log(question.flop_ratio))}
    if throughput is not None:
        error = math.inf if throughput.error is None else throughput.error
        tracks["iso_time"] = tokens.times(throughput.log_ratio, error, level, throughput.blocks)
    return tracks


def _equivalence_level(question: Question) -> float:
    return simultaneous_level(question.comparisons, 1 - 2 * question.alpha)


def _verdict_level(question: Question) -> float:
    return simultaneous_level(question.comparisons, 1 - question.alpha)


def _verdict(
    question: Question,
    horizons: Horizons,
    evidence: Evidence,
    throughput: Throughput | None,
    tracks: dict[str, Speedup],
) -> tuple[Verdict, dict[str, str]]:
    wide_level, narrow_level = _verdict_level(question), _equivalence_level(question)
    wide = _directions(question, horizons, throughput, wide_level)
    narrow = _directions(question, horizons, throughput, narrow_level)
    margin = math.log1p(question.margin)
    estimate = tracks[question.track].direction if question.track in tracks else None
    needed = None
    if estimate is not None:
        needed = seeds_needed(estimate, horizons.seeds, margin, question.alpha / question.comparisons)
    return decide(question.track, wide, narrow, margin, evidence, needed)


def _directions(
    question: Question, horizons: Horizons, throughput: Throughput | None, level: float
) -> dict[str, Interval]:
    """ln S by track where there is one. Without a slope, only the sign of the loss difference at equal tokens."""
    tracks = _tracks(question, horizons, throughput, level)
    if throughput is not None and throughput.refusal:
        del tracks["iso_time"]
    found = {track: one.direction for track, one in tracks.items() if one.direction is not None}
    return found or {"iso_token": _sign_only(mean_interval(horizons.difference(horizons.at_reference), level))}


def _sign_only(delta: Interval) -> Interval:
    """An interval of ln S that is known to be above or below zero and no more."""
    tiny = np.finfo(np.float64).tiny
    if delta.high < 0:
        return Interval(math.nan, float(tiny), math.inf)
    return Interval(math.nan, -math.inf, float(-tiny) if delta.low > 0 else math.inf)


def _differences(question: Question, horizons: Horizons) -> dict[str, Any]:
    index = horizons.at_reference
    variant, baseline = horizons.variant[index], horizons.baseline[index]
    pairs = horizons.difference(index)
    paired, welch = mean_interval(pairs), welch_interval(variant, baseline)
    improvement = probability_of_improvement(variant, baseline, np.random.default_rng(question.seed))
    flips = sign_flip(variant, baseline)
    varied = horizons.seeds > 2 and min(variant.std(), baseline.std()) > 0
    return {
        "n": horizons.seeds,
        "delta_nats": paired.value,
        "ci95": _ends(paired),
        "ci95_simultaneous": _ends(mean_interval(pairs, _verdict_level(question))),
        "welch_ci95": _ends(welch),
        "narrower": "welch" if welch.high - welch.low < paired.high - paired.low else "paired",
        "seed_correlation": float(np.corrcoef(variant, baseline)[0, 1]) if varied else None,
        "sd_paired": float(pairs.std(ddof=1)) if horizons.seeds > 1 else None,
        "p_value": paired_p_value(variant, baseline),
        "sign_flip": {"p": flips.p, "floor": flips.floor},
        "p_improvement": improvement.value,
        "p_improvement_ci95": _ends(improvement),
    }


def _documents(horizons: Horizons, documents: DocumentLosses | None, text_bytes: float | None) -> dict[str, Any]:
    if documents is None:
        return {"ci95_documents": None, "bits_per_byte_delta": None}
    pairs = horizons.difference(horizons.at_reference)
    error, count = documents.error(), documents.clusters_count
    combined = combined_interval(float(pairs.mean()), standard_error(pairs), horizons.seeds, error, count)
    nats = documents.difference() * float(documents.weights.sum())
    return {
        "ci95_documents": _ends(combined),
        "document_se": error,
        "document_se_unpaired": documents.unpaired_error(),
        "bits_per_byte_delta": nats / (math.log(2) * text_bytes) if text_bytes else None,
    }


def _targets(question: Question, horizons: Horizons) -> list[dict[str, Any]]:
    """S at the baseline's loss of each target horizon that was trained."""
    present = [fraction for fraction in TARGETS if fraction in horizons.fractions]
    return [
        {"fraction": fraction} | speedup_json(_speedup(question, horizons, horizons.fractions.index(fraction), 0.95))
        for fraction in present
    ]


def _slopes(estimate: Local | str) -> dict[str, Any]:
    if isinstance(estimate, str):
        return {"baseline": None, "variant": None, "used": None, "reason": estimate}
    return {
        "baseline": estimate.baseline_slope,
        "variant": estimate.variant_slope,
        "used": estimate.used_slope,
    }


def _notes(tracks: dict[str, Speedup], throughput: Throughput | None) -> list[str]:
    notes = list(tracks["iso_token"].notes)
    refusal = "" if throughput is None else throughput.refusal
    return [*notes, refusal] if refusal else notes


def _ends(interval: Interval) -> list[float | None]:
    return [end if math.isfinite(end) else None for end in interval.ends]


def _ratio(value: float) -> float | None:
    return math.exp(min(value, 700.0)) if math.isfinite(value) else None
