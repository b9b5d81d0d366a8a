"""From budgets to models: which sizes a ladder needs, and every arm at each of them."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from windtunnel.comparison.arms import (
    CONTROLS,
    Arm,
    ArmRequest,
    build_arms,
    parse_arm,
    pattern_period,
    unmatched_spec,
    with_size,
)
from windtunnel.comparison.given import is_run
from windtunnel.comparison.ladders.design import Design
from windtunnel.comparison.matching import ACCEPT
from windtunnel.errors import InputError
from windtunnel.ledger import ledger, n_active
from windtunnel.recipes.sizing import gated_hidden
from windtunnel.root import Model

SMALLEST_WIDTH = 16
FARTHEST = 0.1  # a size may lie this far from its place in the ladder: its own count is what is fitted
_NEAR = 4  # shapes that are tried
_PROBE = {"layers": 12, "width": 128}  # deep enough for any pattern to repeat
_PLANNED = ("width", "hidden", "layers")


class Sizing:
    """Chooses layers, width and feed-forward width of the baseline, and matches the other arms to it."""

    def __init__(
        self, arms: Sequence[str], baseline: str | None, design: Design, vocab: int, settings: Mapping[str, Any]
    ) -> None:
        requests = {text: _checked(parse_arm(text)) for text in arms}
        labels = {request.label: text for text, request in requests.items()}
        self.arms, self.design = tuple(arms), design
        self.baseline = baseline or ("llama" if "llama" in labels else next(iter(labels)))
        if self.baseline not in labels:
            raise InputError(f"baseline: {self.baseline!r} is not among the arms {', '.join(labels)}")
        self._text = labels[self.baseline]
        self._settings = dict(settings)
        self._common = {**settings, "vocab": vocab, "context": design.context}
        periods = [pattern_period(text, {**self._common, **_PROBE}) for text in arms]
        self._period = math.lcm(*periods)

    def arms_at(self, parameters: float, *, allow_gap: bool = False) -> list[Arm]:
        """All arms where the baseline has so many parameters with its head, at a width that all can have."""
        refusal = None
        for layers, width, hidden in self._shapes(parameters):
            texts = [_with(text, hidden) if text == self._text else text for text in self.arms]
            preset = self.design.preset(layers, width, self.design.step_tokens)
            vocab, step = self._common["vocab"], _width_step(width)
            try:
                return build_arms(
                    texts, self.baseline, preset, vocab, self._settings, lattice=step, allow_gap=allow_gap
                )[0]
            except InputError as error:
                refusal = refusal or error
        assert refusal is not None
        raise refusal

    def best_parameters(self, budget: float) -> float:
        """N of the baseline at which a budget gives it the design's tokens for each parameter."""
        found = math.sqrt(budget / 6 / self.design.tokens_per_parameter)
        for _ in range(3):
            spec = self._spec(*self._nearest(found)[0])
            share = ledger(spec, self.design.context).flops_per_token / (6 * n_active(spec))
            found = math.sqrt(budget / 6 / self.design.tokens_per_parameter / share)
        return found

    def _depths(self, width: int) -> list[int]:
        """Layers on both sides of the design's aspect, in whole patterns of every arm."""
        if self.design.layers is not None:
            return [self.design.layers]
        patterns = width / self.design.aspect / self._period
        return [each * self._period for each in {max(1, math.floor(patterns)), math.ceil(patterns)}]

    def _spec(self, layers: int, width: int) -> Model:
        return unmatched_spec(self._text, {**self._common, "layers": layers, "width": width})

    def _distortion(self, layers: int, width: int) -> float:
        """How far a shape is from the design's aspect, at half the weight of a distance in size."""
        return 0.0 if self.design.layers is not None else abs(math.log(width / layers / self.design.aspect)) / 2

    def _nearest(self, parameters: float) -> list[tuple[int, int]]:
        """Layers and widths whose models come nearest in size, with some weight on their aspect; the best first."""
        seen: list[tuple[float, int, int]] = []
        width, smallest = SMALLEST_WIDTH, 0
        while smallest < 2 * parameters:
            sizes = {layers: n_active(self._spec(layers, width)) for layers in self._depths(width)}
            for layers, size in sizes.items():
                distance = abs(math.log(size / parameters)) + self._distortion(layers, width)
                seen.append((distance, layers, width))
            smallest = min(sizes.values())
            width += _width_step(width)
        return [(layers, width) for _, layers, width in sorted(seen)[:_NEAR]]

    def _shapes(self, parameters: float) -> list[tuple[int, int, int]]:
        """Layers, widths and feed-forward widths with so many parameters, the least distorted first."""
        found = []
        for layers, width in self._nearest(parameters):
            sizes = {**self._common, "layers": layers, "width": width}
            match = with_size(self._text, sizes, round(parameters), n_active, lattice=_width_step(width))
            stretched = abs(math.log(match.settings["hidden"] / gated_hidden(width)))
            distorted = stretched + self._distortion(layers, width)
            found.append((max(abs(match.gap) - ACCEPT, 0.0), distorted, layers, width, match))
        found.sort(key=lambda one: one[:4])
        *_, nearest, match = found[0]
        if abs(match.gap) > FARTHEST:
            raise InputError(
                f"budgets: no size of {self.baseline} has {parameters:,.0f} parameters with its head; the nearest has "
                f"{match.n_body:,} at width {nearest}: raise the smallest budget, or lower --vocab"
            )
        return [
            (layers, width, match.settings["hidden"])
            for *_, layers, width, match in found
            if abs(match.gap) <= FARTHEST
        ]


def _width_step(width: int) -> int:
    """Widths and feed-forward widths are multiples of this; an eighth of the width at most from 64 on."""
    return 8 if width < 128 else min(64, 2 ** (width.bit_length() - 4))


def _checked(request: ArmRequest) -> ArmRequest:
    """Refuse settings that a ladder plans itself, and controls, which are `compare`'s."""
    if is_run(request.recipe):
        raise InputError(f"arm {request.label!r}: is a run at its own sizes, and a ladder plans sizes; name a recipe")
    for name in (*_PLANNED, *CONTROLS):
        if name in request.settings:
            why = "controls are for compare" if name in CONTROLS else "a ladder plans its own sizes"
            raise InputError(f"arm {request.label!r}: {name} is set, but {why}; leave it out")
    return request


def _with(text: str, hidden: int) -> str:
    """The arm as it was written, with this feed-forward width."""
    return f"{text}{',' if parse_arm(text).settings else ':'}hidden={hidden}"
