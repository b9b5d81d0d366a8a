"""Equal states: every arm's width is turned until decoding one sequence of a task carries as many bytes (iso-state).

What an architecture can remember is bounded by its state, so recall is compared at equal states too; parameters then
differ, and are reported.
"""

from collections.abc import Callable

from windtunnel.comparison.matching import Match, Shape
from windtunnel.errors import InputError

ACCEPT = 0.05
_RANGE = (1 / 8, 8)  # of the registered width


def match_state(
    state: Callable[[dict[str, int]], int],
    body: Callable[[dict[str, int]], int],
    start: Shape,
    target: int,
    reference: int,
    *,
    lattice: int = 8,
    allow_gap: bool = False,
) -> Match:
    """The width at which `state` comes nearest to `target` bytes, heads and the ratio of hidden to width as registered.

    state, body: settings -> bytes of the state, active body parameters. The gap of the result is that of the parameters
    to `reference`. Raises `InputError` where the nearest state is more than 5 % off, unless `allow_gap`.
    """
    step = start.head_width
    low, high = max(1, round(_RANGE[0] * start.width / step)), round(_RANGE[1] * start.width / step)

    def at(heads: int) -> dict[str, int]:
        return start.at_width(heads * step, lattice).settings()

    if start.width % step == 0 and state(start.settings()) == target:
        settings, off = start.settings(), 0.0
    else:
        while high - low > 1:  # the state grows with the width
            middle = (low + high) // 2
            low, high = (middle, high) if state(at(middle)) <= target else (low, middle)
        settings = min((at(low), at(high)), key=lambda one: abs(state(one) - target))
        off = state(settings) / target - 1
    count = body(settings)
    warning = f"its state is {100 * off:+.1f} % from the {target:,} bytes asked for" if off else ""
    if abs(off) > ACCEPT and not allow_gap:
        raise InputError(
            f"up to width {round(_RANGE[1] * start.width)} the state nearest to {target:,} bytes has "
            f"{state(settings):,} ({100 * off:+.1f} %, at width {settings['width']}); name another --state, or pass "
            "--allow-param-gap"
        )
    return Match(settings, count, count / reference - 1, "width", settings["width"], warning)
