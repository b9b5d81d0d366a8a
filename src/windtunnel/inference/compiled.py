"""Decoding steps of a model as compiled programs: the next tokens of some rows, states written in place.

A step is traced (`torch.export`), compiled by inductor ahead of time and kept in the user's cache folder, so that the
next process loads it in a moment (`programs.py`). What it computes is what the eager step computes, by the same code of
the parts; a program that does not give the eager step's logits is not used.
"""

import warnings
import weakref
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from windtunnel.errors import WorkError
from windtunnel.inference import states
from windtunnel.inference.programs import LONGEST, Positions, Program, Step, program, weights_of
from windtunnel.model import LanguageModelLayer
from windtunnel.root import ModelLayer, ModelState

Say = Callable[[str], None]

TOLERANCE = 1e-4  # of logits, over the largest of them where that is above 1


class Programs(NamedTuple):
    """What single tokens go through, and blocks of them; None where those stay eager."""

    single: Program
    block: Program | None


# Checked in this process, by the type of the caches and what they take.
_CHECKED: "weakref.WeakKeyDictionary[ModelLayer, dict[tuple[torch.dtype, Positions], Program]]"
_CHECKED = weakref.WeakKeyDictionary()


class CompiledStep:
    """The compiled steps over the rows of one batch's state."""

    def __init__(self, model: ModelLayer, state: ModelState, programs: Programs) -> None:
        self.programs = programs
        self._weights = weights_of(model)
        self._state = state
        self._rows: dict[tuple[int, int], list[Tensor]] = {}
        self._slots = max([buffers.keys.shape[2] for buffers in states.buffers(state.blocks)], default=1)
        self._seen = torch.empty(self._slots, dtype=torch.uint8, device=self._weights[0].device)

    def takes(self, count: int) -> bool:
        """Whether calls with so many tokens a row are compiled."""
        return count == 1 or (self.programs.block is not None and count <= LONGEST)

    def __call__(self, first: int, tokens: Tensor, positions: Sequence[int]) -> Tensor:
        """The logits [b t v] after each of the next tokens [b t] of rows first, first + 1, ..

        positions: where each row stands.
        """
        rows, count = tokens.shape
        chosen = self.programs.single if count == 1 else self.programs.block
        assert chosen is not None
        if (first, rows) not in self._rows:
            held = states.rows(self._state, slice(first, first + rows))
            self._rows[first, rows] = [*states.flat(held), *self._weights]
        seen = self._seen[: min(max(positions) + count, self._slots)]
        at = torch.tensor(positions, device=tokens.device)[:, None]
        at = at if count == 1 else at + torch.arange(count, device=tokens.device)
        return chosen.run([tokens, at, seen, *self._rows[first, rows]])[0]


def compiled_step(
    model: ModelLayer,
    state: ModelState,
    say: Say = lambda words: None,
    cache: torch.dtype | None = None,
) -> CompiledStep:
    """Compiled steps for the rows of this state: loaded if they were compiled before, else compiled now.

    cache: the type that the state was reserved in. Where only blocks of tokens cannot be compiled, that is said.

    Raises `WorkError` where there can be none: no compiler, a part that cannot be traced, or other logits than eager's.
    """
    single = _checked(model, cache, "single", say)
    block: Program | None = None
    try:
        block = _checked(model, cache, "block", say)
    except WorkError as error:
        say(f"several tokens at a time go on uncompiled: {error}")
    return CompiledStep(model, state, Programs(single, block))


def compiled_or_said(
    model: ModelLayer,
    state: ModelState,
    say: Say | None = None,
    cache: torch.dtype | None = None,
) -> CompiledStep | None:
    """`compiled_step`, or None and one line of why not: given to `say`, a warning without it."""
    try:
        return compiled_step(model, state, say or (lambda words: None), cache)
    except WorkError as error:
        tell(f"decoding goes on uncompiled: {error}", say)
        return None


def tell(words: str, say: Say | None) -> None:
    """Give words to `say`; a warning without it."""
    if say is None:
        warnings.warn(words, RuntimeWarning, stacklevel=3)
    else:
        say(words)


def _checked(model: ModelLayer, cache: torch.dtype | None, positions: Positions, say: Say) -> Program:
    """A program that gives the eager step's logits."""
    if not isinstance(model, LanguageModelLayer):
        raise WorkError(f"a {model.spec.kind} decodes uncompiled")
    known = _CHECKED.setdefault(model, {})
    key = (cache or model.embedding.weight.dtype, positions)
    if key not in known:
        try:
            found = program(model, cache, positions, say)
            _check(model, found, cache, positions)
        except WorkError:
            raise
        except Exception as error:
            reason = str(error).strip().splitlines() or [""]
            raise WorkError(f"{type(error).__name__}: {reason[0]}") from error
        known[key] = found
    return known[key]


@torch.inference_mode()
def _check(
    model: ModelLayer, found: Program, cache: torch.dtype | None = None, positions: Positions = "single"
) -> None:
    """Some calls beside the eager ones, from an empty state; `WorkError` where the logits or the states differ.

    A cache of narrower numbers may round one up where the other rounds down.
    """
    allowed = TOLERANCE if cache is None else max(TOLERANCE, torch.finfo(cache).eps)
    batch, device = 2, model.embedding.weight.device
    ours, theirs = (model.reserve(batch, 16, 8, cache) for _ in range(2))
    compiled = CompiledStep(model, ours, Programs(found, found))
    eager = Step(model, theirs.blocks)
    place = 0
    for count in (1, 1, 1) if positions == "single" else (2, 5, 3):
        at = torch.arange(place, place + count, device=device).expand(batch, -1)
        tokens = (7 * at + torch.arange(batch, device=device)[:, None]) % model.spec.vocab
        expected = eager(tokens, at, torch.empty(place + count), states.flat(theirs.blocks))
        given = compiled(0, tokens, [place] * batch)
        pairs = zip(states.flat(ours.blocks), states.flat(theirs.blocks), strict=True)
        for one, other in [(given, expected), *pairs]:
            error = _difference(one, other)
            if not error <= allowed:
                raise WorkError(f"the compiled step differs from the eager one by {error:.2g}")
        place += count


def _difference(one: Tensor, other: Tensor) -> float:
    """The largest difference, over the largest number above 1; infinities are equal or infinitely far apart."""
    if not one.numel():
        return 0.0
    apart = torch.where(one == other, 0.0, (one - other).abs())
    return float(apart.max()) / max(1.0, float(torch.where(other.isfinite(), other, 0.0).abs().max()))
