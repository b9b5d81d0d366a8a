"""Equal parameters: one knob of the variant is turned until its body has the baseline's size.

The parameter count is asked of the model itself (built on the meta device by the caller's `count`), so it cannot drift
from the code. Knobs, least invasive first: feed-forward width, an inner width of the mixer, width at fixed head size,
layers, and last width and feed-forward width together.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from windtunnel.errors import InputError

Count = Callable[[dict[str, int]], int]

CLOSE = 0.005  # a start that is this near is left as registered
ACCEPT = 0.01
REFUSE = 0.02
RATIOS = (1.5, 6.0)  # hidden / width
DEPTHS = (0.5, 2.0)  # (width / layers) / registered (width / layers)


@dataclass(frozen=True)
class Shape:
    """The sizes that may be turned. `period`: layers of one whole pattern (Griffin: 3)."""

    width: int
    layers: int
    heads: int
    hidden: int
    period: int = 1
    active: int = 1

    def settings(self) -> dict[str, int]:
        """The keywords that a recipe takes."""
        return {"width": self.width, "layers": self.layers, "heads": self.heads, "hidden": self.hidden}

    def at_width(self, width: int, lattice: int) -> "Shape":
        """Another width with the same head size and, as nearly as the lattice allows, the same hidden / width."""
        hidden = max(lattice, round(self.hidden * width / self.width / lattice) * lattice)
        return replace(self, width=width, heads=width * self.heads // self.width, hidden=hidden)

    @property
    def head_width(self) -> int:
        """Width of one head, which stays as registered."""
        return self.width // self.heads


@dataclass(frozen=True)
class Inner:
    """An inner width of the mixer (recurrent width, feature count, expert width): its keyword, value and step."""

    name: str
    value: int
    step: int


@dataclass(frozen=True)
class Match:
    """What the variant is built with. n_body: the matched count; gap = n_body / target - 1.

    The count is of body parameters that a token meets: all of them where there are no experts. `warning` is empty
    within 1 %.
    """

    settings: dict[str, int]
    n_body: int
    gap: float
    knob: str
    value: int
    warning: str = ""


@dataclass(frozen=True)
class _Candidate:
    settings: dict[str, int]
    n_body: int
    knob: str
    value: int
    penalty: float = 0.0

    def gap(self, target: int) -> float:
        return self.n_body / target - 1


def match(
    count: Count,
    start: Shape,
    target: int,
    *,
    lattice: int = 8,
    inner: Inner | None = None,
    allow_gap: bool = False,
    knobs: Iterable[str] = ("hidden", "inner", "width", "layers", "width and hidden"),
) -> Match:
    """Settings whose body has `target` parameters within 1 %, by the first knob that gets there.

    count: settings -> body parameters. lattice: of the feed-forward width, 8 on a CPU and 64 on a GPU; halved down to 1
    before a more invasive knob is tried. Raises InputError beyond 2 % unless `allow_gap`.
    """
    search = _Search(count, start, target, lattice)
    registered = search.candidate(start.settings(), "none", 0)
    if abs(registered.gap(target)) <= CLOSE:
        return _accepted(registered, target)
    turned: Mapping[str, Callable[[], Iterable[list[_Candidate]]]] = {
        "hidden": search.hidden,
        "inner": lambda: search.inner(inner),
        "width": search.width,
        "layers": search.layers,
        "width and hidden": search.width_and_hidden,
    }
    seen = [registered]
    for knob in knobs:
        for candidates in turned[knob]():
            seen += candidates
            best = min(candidates, key=lambda one: abs(one.gap(target)) + one.penalty, default=None)
            if best is not None and abs(best.gap(target)) <= ACCEPT:
                return _accepted(best, target)
    best = min(seen, key=lambda one: abs(one.gap(target)))
    if abs(best.gap(target)) > REFUSE and not allow_gap:
        raise InputError(_refusal(registered, best, target))
    return _accepted(best, target)


def match_by_width(count: Count, start: Shape, target: int, *, lattice: int = 8, allow_gap: bool = False) -> Match:
    """The second knob: another width pays for the mixer, the feed-forward ratio staying near the registered one.

    Tells whether a verdict depends on the knob. With few heads the widths at a fixed head size are far apart, so the
    feed-forward width takes up what is left.
    """
    return match(count, start, target, lattice=lattice, allow_gap=allow_gap, knobs=("width", "width and hidden"))


@dataclass(frozen=True)
class _Search:
    """Candidates of each knob: the two lattice points around the root of count = target, inside the guards."""

    count: Count
    start: Shape
    target: int
    lattice: int

    def candidate(self, settings: dict[str, int], knob: str, value: int, penalty: float = 0.0) -> _Candidate:
        return _Candidate(settings, self.count(settings), knob, value, penalty)

    def hidden(self) -> Iterable[list[_Candidate]]:
        """Ever finer lattices, since on a tiny model one step of 8 can be 2 % of the parameters."""
        for step in self._lattices():
            yield self._hidden_at(self.start, step, "hidden", 0.0)

    def inner(self, inner: Inner | None) -> Iterable[list[_Candidate]]:
        if inner is None:
            return
        settings, high = self.start.settings(), 8 * inner.value // inner.step
        yield self._around(lambda value: settings | {inner.name: value}, inner.step, 1, high, inner.name, 0.0)

    def width(self) -> Iterable[list[_Candidate]]:
        """Widths at the registered head size; the hidden size keeps its ratio."""
        low, high = self._width_limits()
        shape = self.start
        yield self._around(
            lambda value: shape.at_width(value, self.lattice).settings(), shape.head_width, low, high, "width", 0.0
        )

    def layers(self) -> Iterable[list[_Candidate]]:
        shape = self.start
        low = max(1, -(-shape.layers // (2 * shape.period)))
        high = max(low, 2 * shape.layers // shape.period)
        yield self._around(
            lambda value: replace(shape, layers=value).settings(), shape.period, low, high, "layers", 0.0
        )

    def width_and_hidden(self) -> Iterable[list[_Candidate]]:
        """Both together, the less the ratio hidden / width moves the better."""
        low, high = self._width_limits()
        registered = self.start.hidden / self.start.width
        for step in self._lattices():
            found: list[_Candidate] = []
            for steps in range(low, high + 1):
                shape = self.start.at_width(steps * self.start.head_width, step)
                if shape.width != self.start.width:
                    found += self._hidden_at(shape, step, "width and hidden", registered)
            yield found

    def _lattices(self) -> list[int]:
        steps = [self.lattice]
        while steps[-1] > 1:
            steps.append(steps[-1] // 2)
        return steps

    def _width_limits(self) -> tuple[int, int]:
        """Head counts that keep width / layers within half and twice the registered value."""
        head, width = self.start.head_width, self.start.width
        return max(1, -(-int(DEPTHS[0] * width) // head)), int(DEPTHS[1] * width) // head

    def _hidden_at(self, shape: Shape, step: int, knob: str, registered: float) -> list[_Candidate]:
        narrow, wide = (int(ratio * shape.width / shape.active) for ratio in RATIOS)  # of all that a token meets
        low, high = -(-narrow // step), wide // step
        found = self._around(lambda value: replace(shape, hidden=value).settings(), step, low, high, knob, 0.0)
        if not registered:
            return found
        return [replace(one, penalty=0.1 * abs(one.value / shape.width / registered - 1)) for one in found]

    def _around(
        self, settings: Callable[[int], dict[str, int]], step: int, low: int, high: int, knob: str, penalty: float
    ) -> list[_Candidate]:
        """The multiples of `step` on both sides of the target, by bisection on the counter (monotone in every knob)."""
        low = max(low, 1)
        if high < low:
            return []

        def at(steps: int) -> _Candidate:
            return self.candidate(settings(steps * step), knob, steps * step, penalty)

        below, above = at(low), at(high)
        if below.n_body >= self.target or above.n_body <= self.target:
            return [below, above]
        while high - low > 1:
            middle = (low + high) // 2
            found = at(middle)
            if found.n_body <= self.target:
                low, below = middle, found
            else:
                high, above = middle, found
        return [below, above]


def _accepted(found: _Candidate, target: int) -> Match:
    gap = found.gap(target)
    warning = (
        "" if abs(gap) <= ACCEPT else f"parameters differ by {100 * gap:+.1f} %; the loss value of the gap is unpriced"
    )
    return Match(found.settings, found.n_body, gap, found.knob, found.value, warning)


def _refusal(registered: _Candidate, best: _Candidate, target: int) -> str:
    sizes = ", ".join(f"{name} {value}" for name, value in best.settings.items())
    return (
        f"parameters: no setting brings the variant to the baseline's {target:,} body parameters within "
        f"{100 * REFUSE:.0f} %: registered {registered.n_body:,}, nearest {best.n_body:,} "
        f"({100 * best.gap(target):+.1f} %) with {sizes}; give it other layers, width or hidden, or allow the gap"
    )
