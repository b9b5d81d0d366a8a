"""The plain sentences of a comparison, written so that a ratio cannot be misread."""

import math

from windtunnel.comparison.speedup import Speedup
from windtunnel.comparison.verdict import (
    EQUIVALENT,
    INCONCLUSIVE,
    LOSES,
    LOSES_SMALL,
    MIXED,
    NO_VERDICT,
    PRELIMINARY,
    WINS,
    WINS_SMALL,
    Verdict,
)

UNITS = {"iso_token": "tokens", "iso_flop": "FLOPs", "iso_time": "time"}


def saved(speedup: Speedup) -> float | None:
    """Share saved, 1 - 1 / S; negative where more is needed."""
    return None if speedup.value is None else 1 - 1 / speedup.value


def needs(speedup: Speedup, unit: str) -> str:
    """`1.31x fewer tokens [1.22, 1.41]` or `1.12x more tokens [1.05, 1.20]`; a bound where there is no number."""
    if speedup.value is None:
        return f"an unknown amount of {unit} ({speedup.text})"
    low, high = speedup.ends
    less = "less" if unit == "time" else "fewer"
    value, ends, word = speedup.value, (low, high), less
    if speedup.value < 1:
        value, word = 1 / speedup.value, "more"
        ends = (None if high is None else 1 / high, None if low is None or low == 0 else 1 / low)
    interval = "" if ends[0] is None or ends[1] is None else f" [{ends[0]:.2f}, {ends[1]:.2f}]"
    return f"{value:.2f}x {word} {unit}{interval}"


def product(tokens: Speedup, log_throughput: float, time: Speedup) -> str:
    """`1.20x fewer tokens, 0.90x throughput => 1.08x`."""
    rate = math.exp(log_throughput)
    if tokens.value is None or time.value is None:
        return f"tokens {tokens.text}, {rate:.2f}x throughput"
    return f"{needs_short(tokens.value)}, {rate:.2f}x throughput => {time.value:.2f}x"


def needs_short(value: float) -> str:
    """A speedup in tokens, in words."""
    return f"{value:.2f}x fewer tokens" if value >= 1 else f"{1 / value:.2f}x more tokens"


def sentence(
    variant: str, baseline: str, verdict: Verdict, primary: str, speedups: dict[str, Speedup], words: dict[str, str]
) -> str:
    """One plain sentence for a reader who sees nothing else."""
    main = _main(variant, baseline, verdict.uncapped, primary, speedups, words)
    if verdict.word == NO_VERDICT:
        return f"One seed gives no verdict on {variant} against {baseline}."
    if verdict.word == PRELIMINARY:
        return f"Preliminary ({'; '.join(verdict.caps)}): {main}."
    if verdict.word == INCONCLUSIVE and verdict.n_needed is not None:
        return f"{main}; about {verdict.n_needed} seeds would be needed."
    return f"{main}."


def _main(
    variant: str, baseline: str, word: str, primary: str, speedups: dict[str, Speedup], words: dict[str, str]
) -> str:
    unit, headline = UNITS[primary], speedups[primary]
    if word == MIXED:
        return f"{variant} against {baseline} is mixed: {_by_track(speedups, words)}"
    if word == INCONCLUSIVE:
        return f"{variant} and {baseline} cannot be told apart (speedup in {unit}: {headline.text})"
    if word == EQUIVALENT:
        return f"{variant} needs the same {unit} as {baseline} within the margin (speedup {headline.text})"
    if headline.value is None:
        return _without_number(variant, baseline, word, unit, headline)
    others = [needs(speedups[track], UNITS[track]) for track in _others(primary, speedups)]
    also = f" ({'; '.join(others)})" if others else ""
    verb = "reaches" if word in (WINS, WINS_SMALL) else "needs"
    if verb == "reaches":
        return f"{variant} reaches {baseline}'s loss with {needs(headline, unit)}{also}"
    return f"{variant} needs {needs(headline, unit)} to reach {baseline}'s loss{also}"


def _without_number(variant: str, baseline: str, word: str, unit: str, speedup: Speedup) -> str:
    if speedup.log is None:
        side = "lower" if word in (WINS, WINS_SMALL) else "higher"
        return f"{variant} ends at a {side} loss than {baseline} with equal tokens ({speedup.reason})"
    if word in (LOSES, LOSES_SMALL):
        return f"{variant} does not reach {baseline}'s loss within the {unit} trained (speedup {speedup.text})"
    return f"{variant} reaches {baseline}'s loss before its shortest horizon (speedup in {unit} {speedup.text})"


def _others(primary: str, speedups: dict[str, Speedup]) -> list[str]:
    same = speedups[primary].text
    return [t for t, one in speedups.items() if t != primary and one.value is not None and one.text != same]


def _by_track(speedups: dict[str, Speedup], words: dict[str, str]) -> str:
    return ", ".join(f"{UNITS[track]} {speedups[track].text} ({word})" for track, word in words.items())
