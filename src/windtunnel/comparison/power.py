"""What a study can see before it runs: the noncentral t distribution, the normal formula is optimistic at few seeds."""

import math

from scipy import optimize, stats

from windtunnel.errors import InputError

MOST_SEEDS = 10_000


def power(effect: float, seeds: int, paired: bool = True, alpha: float = 0.05) -> float:
    """Chance that a two-sided t test at `alpha` sees a true difference of `effect` standard deviations.

    The unit is the s.d. of the paired difference, or of one arm when unpaired (two arms of `seeds` each).
    """
    freedom = seeds - 1 if paired else 2 * seeds - 2
    shift = effect * math.sqrt(seeds if paired else seeds / 2)
    limit = stats.t.ppf(1 - alpha / 2, freedom)
    wrong_side = float(stats.nct.cdf(-limit, freedom, shift))  # scipy gives NaN where this is below about 1e-15
    return float(stats.nct.sf(limit, freedom, shift)) + (0.0 if math.isnan(wrong_side) else wrong_side)


def detectable(seeds: int, paired: bool = True, alpha: float = 0.05, chance: float = 0.8) -> float:
    """Smallest true difference, in standard deviations, seen with probability `chance`."""
    if seeds < 2:
        raise InputError(f"seeds: {seeds} has no interval; at least 2")
    high = 1.0
    while power(high, seeds, paired, alpha) < chance:
        high *= 2
    return float(optimize.brentq(lambda effect: power(effect, seeds, paired, alpha) - chance, 0.0, high))


def required_seeds(effect: float, paired: bool = True, alpha: float = 0.05, chance: float = 0.8) -> int | None:
    """Fewest seeds that see a difference of `effect` standard deviations; None if more than 10,000."""
    if not effect > 0 or power(effect, MOST_SEEDS, paired, alpha) < chance:
        return None
    low, high = 1, 2
    while power(effect, high, paired, alpha) < chance:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if power(effect, middle, paired, alpha) >= chance else (middle, high)
    return high


def detectable_speedup(delta: float, slope: float) -> float:
    """A difference of `delta` nats as a ratio of tokens, by the local slope s = -dL/dlnD: exp(delta / s)."""
    if not slope > 0:
        raise InputError(f"slope: {slope} must be positive nats per e-fold of tokens")
    return math.exp(min(delta / slope, 700.0))


def announcement(seeds: int, sigma: float, slope: float | None, prior: bool, alpha: float = 0.05) -> str:
    """The sentence printed before a run. sigma: s.d. of the paired difference; prior: assumed, not measured here."""
    source = "assumed" if prior else "measured"
    if seeds < 2:
        return f"With n = {seeds} seed this study has no interval and gives no verdict (sigma {sigma:.4f}, {source})."
    delta = detectable(seeds, alpha=alpha) * sigma
    text = f"With n = {seeds} seeds and sigma = {sigma:.4f} nats ({source}) this study can detect {delta:.4f} nats"
    if slope is None:
        return f"{text}."
    return f"{text}, a speedup of {100 * (detectable_speedup(delta, slope) - 1):.1f} % (slope {slope:.2f})."
