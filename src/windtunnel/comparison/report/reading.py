"""Reads a study's results: what is missing stays None or empty, what is unknown is ignored."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from windtunnel.report import colour, marker
from windtunnel.report.figures import number_or_none

MEASURES = ("s_tok", "s_flop", "s_time")
MEASURE_NAMES = {"s_tok": "tokens", "s_flop": "FLOPs", "s_time": "time"}


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A number with its 95 % interval; any of them may be unknown."""

    value: float | None = None
    low: float | None = None
    high: float | None = None

    @property
    def half(self) -> float | None:
        """Half the interval's width."""
        return None if self.low is None or self.high is None else (self.high - self.low) / 2


@dataclass(frozen=True, kw_only=True)
class Speedup(Estimate):
    """A ratio to the baseline, over one in the variant's favour. Censored: no value, only bounds, either end open."""

    censored: bool = False
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One arm; `raw` is its part of the results."""

    name: str
    label: str
    colour: str
    marker: str
    is_baseline: bool
    raw: Mapping[str, Any]

    @property
    def loss(self) -> Estimate:
        """Final held-out loss in nats a token."""
        return summary(self.raw.get("loss"))

    @property
    def failed(self) -> bool:
        """Whether the arm has no final loss."""
        return self.loss.value is None

    @property
    def horizons(self) -> list[tuple[float, float, Estimate]]:
        """Fraction, tokens and loss of every fully decayed horizon, shortest first."""
        points = []
        for fraction, horizon in mapping(self.raw.get("horizons")).items():
            tokens = self.number("horizons", fraction, "tokens")
            loss = summary(mapping(horizon).get("loss"))
            if tokens and loss.value is not None:
                points.append((float(fraction), tokens, loss))
        return sorted(points, key=lambda point: point[1])

    def number(self, *path: str) -> float | None:
        """The number at a path of names, or None."""
        return number_or_none(dig(self.raw, *path))

    def part(self, name: str) -> Mapping[str, Any]:
        """A named object of the arm, empty where missing."""
        return mapping(self.raw.get(name))

    def state_at(self, context: int | None) -> float | None:
        """Decoding state in bytes at the study's context, or at the longest context known."""
        sizes = self.state_sizes
        if not sizes:
            return None
        known = dict(sizes)
        return known.get(context, sizes[-1][1]) if context is not None else sizes[-1][1]

    @property
    def state_sizes(self) -> list[tuple[int, float]]:
        """(context, bytes) pairs, shortest context first."""
        pairs = [(key, number_or_none(value)) for key, value in self.part("state_bytes").items()]
        return sorted((int(key), value) for key, value in pairs if value is not None and str(key).isdigit())


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One variant against the baseline; `raw` is its part of the results."""

    variant: Arm
    raw: Mapping[str, Any]

    @property
    def delta(self) -> Estimate:
        """Difference of loss in nats a token; below zero is better than the baseline."""
        return bounded(self.raw.get("delta_nats"), self.raw.get("ci95"))

    @property
    def verdict(self) -> str:
        """The verdict's words."""
        return str(self.raw.get("verdict") or "no verdict").replace("_", " ")

    @property
    def grade(self) -> str:
        """The confidence grade, A to E."""
        return str(self.raw.get("grade") or "")

    def speedup(self, measure: str) -> Speedup | None:
        """One of `MEASURES`; None where no estimate was possible."""
        raw = mapping(self.raw.get(measure))
        found = bounded(raw.get("value"), raw.get("ci95"))
        censored, reason = bool(raw.get("censored")), str(raw.get("reason") or "")
        if censored:
            high = found.value if found.low is None and found.high is None else found.high
            return Speedup(low=found.low, high=high, censored=True, reason=reason)
        if found.value is None:
            return None
        return Speedup(value=found.value, low=found.low, high=found.high, reason=reason)

    def refusal(self, measure: str) -> str:
        """Why there is no estimate, where the study says it."""
        return str(mapping(self.raw.get(measure)).get("reason") or "")


@dataclass(frozen=True, kw_only=True)
class Study:
    """A study's results as the report reads them."""

    raw: Mapping[str, Any]
    arms: Sequence[Arm]
    comparisons: Sequence[Comparison]

    @property
    def baseline(self) -> Arm | None:
        """The baseline, if it is among the arms."""
        return next((arm for arm in self.arms if arm.is_baseline), None)

    @property
    def title(self) -> str:
        """The study's title, or the names of its arms."""
        others = [arm.label for arm in self.arms if not arm.is_baseline]
        base = self.baseline
        return str(self.raw.get("title") or (f"{', '.join(others)} against {base.label}" if base else "A comparison"))

    @property
    def context(self) -> int | None:
        """Training context length."""
        value = self.number("settings", "context")
        return None if value is None else int(value)

    def part(self, name: str) -> Mapping[str, Any]:
        """A named object, empty where missing."""
        return mapping(self.raw.get(name))

    def number(self, *path: str) -> float | None:
        """The number at a path of names, or None."""
        return number_or_none(dig(self.raw, *path))

    def texts(self, name: str) -> list[str]:
        """A named list of texts."""
        return [str(text) for text in items(self.raw.get(name))]

    def comparison(self, arm: Arm) -> Comparison | None:
        """The arm's comparison with the baseline."""
        return next((one for one in self.comparisons if one.variant.name == arm.name), None)


def read(results: Mapping[str, Any]) -> Study:
    """A study from the contents of results.json; arms in their order, the baseline first.

    An arm that is known only from its failure is an arm without numbers.
    """
    baseline = str(results.get("baseline") or "")
    named = dict(mapping(results.get("arms")))
    for failure in items(results.get("failures")):
        named.setdefault(str(mapping(failure).get("arm") or "unknown"), {})
    order = sorted(named, key=lambda name: name != baseline)
    arms = [_arm(str(name), mapping(named[name]), index, str(name) == baseline) for index, name in enumerate(order)]
    by_name = {arm.name: arm for arm in arms}
    compared = [mapping(one) for one in items(results.get("comparisons"))]
    comparisons = [
        Comparison(variant=by_name[str(c["variant"])], raw=c) for c in compared if str(c.get("variant")) in by_name
    ]
    return Study(raw=results, arms=arms, comparisons=comparisons)


def _arm(name: str, raw: Mapping[str, Any], index: int, is_baseline: bool) -> Arm:
    """Colours and markers follow the order, so that an arm looks the same in every chart; the baseline is grey."""
    own = str(raw.get("colour") or "")
    place = 0 if is_baseline else 1 + (index - 1) % 7 if index else 1
    shade = own if re.fullmatch(r"#[0-9a-fA-F]{6}", own) else colour(place)
    return Arm(
        name=name,
        label=str(raw.get("label") or name),
        colour=shade,
        marker=marker(index),
        is_baseline=is_baseline,
        raw=raw,
    )


def summary(raw: Any) -> Estimate:
    """An estimate from `{"mean": .., "ci95": [..]}`."""
    known = mapping(raw)
    return bounded(known.get("mean"), known.get("ci95"))


def bounded(value: Any, interval: Any) -> Estimate:
    """An estimate from a value and a pair."""
    ends = items(interval)
    low, high = (number_or_none(end) for end in ends) if len(ends) == 2 else (None, None)
    return Estimate(value=number_or_none(value), low=low, high=high)


def mapping(raw: Any) -> Mapping[str, Any]:
    """The object itself, or an empty one."""
    return raw if isinstance(raw, Mapping) else {}


def items(raw: Any) -> Sequence[Any]:
    """The list itself, or an empty one."""
    return raw if isinstance(raw, list | tuple) else ()


def dig(raw: Any, *path: str) -> Any:
    """What lies at a path of names; None where a name is missing."""
    for name in path:
        if not isinstance(raw, Mapping):
            return None
        raw = raw.get(name)
    return raw
