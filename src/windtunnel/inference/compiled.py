"""One decoding step of a model as a compiled program: a token for each of some rows, states written in place.

The step is traced once (`torch.export`), compiled by inductor ahead of time and kept in the user's cache folder, so
that the next process loads it in a moment. Weights, states, the number of rows and the visible part of the buffers are
inputs: one program serves all runs of a spec, at every length. What it computes is what the eager step computes, by
the same code of the parts; a program that does not give the eager step's logits is not used.
"""

import contextlib
import functools
import hashlib
import io
import logging
import os
import shutil
import tempfile
import time
import warnings
import weakref
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from windtunnel.errors import WorkError
from windtunnel.execution import hardware_name
from windtunnel.inference import states
from windtunnel.layer import Context
from windtunnel.model import LanguageModelLayer
from windtunnel.root import ModelLayer, ModelState

Say = Callable[[str], None]

TOLERANCE = 1e-4  # of logits, over the largest of them where that is above 1
# Checked in this process, by the type of the caches.
_PROGRAMS: "weakref.WeakKeyDictionary[ModelLayer, dict[torch.dtype, Program]]" = weakref.WeakKeyDictionary()
_ROWS, _CAPACITY, _CHUNK, _SEEN = 4, 320, 32, 192  # of the example: any will do, these resemble what comes


class Program(NamedTuple):
    """A compiled step and what it took to have it. fresh: compiled now, not loaded."""

    run: Callable[[list[Tensor]], list[Tensor]]
    seconds: float
    fresh: bool


class _Step(nn.Module):
    """What is compiled. tokens, positions: [b 1]. seen: as many numbers as there are visible slots. tensors: states."""

    def __init__(self, model: ModelLayer, blocks: Sequence[Any]) -> None:
        super().__init__()
        self.model, self.blocks = model, tuple(blocks)

    def forward(self, tokens: Tensor, positions: Tensor, seen: Tensor, tensors: list[Tensor]) -> Tensor:
        context = Context(positions, None, tokens, reach=seen.shape[0])
        given = states.filled(self.blocks, tensors)
        encoded = self.model.encode(tokens, ModelState(0, given), context)
        assert encoded.states is not None
        for held, new in zip(tensors, states.flat(encoded.states), strict=True):
            if held is not new:
                held.copy_(new)
        logits: Tensor = self.model.head(encoded.hidden, self.model.embedding.weight)
        return logits


class _Traced(nn.Module):
    """The step as a function of its weights too."""

    def __init__(self, step: _Step) -> None:
        super().__init__()
        self._names = [name for name, _ in _weights(step)]
        self._call = functools.partial(torch.func.functional_call, step)

    def forward(
        self, tokens: Tensor, positions: Tensor, seen: Tensor, tensors: list[Tensor], weights: list[Tensor]
    ) -> Tensor:
        out: Tensor = self._call(dict(zip(self._names, weights, strict=True)), (tokens, positions, seen, tensors))
        return out


class CompiledStep:
    """The compiled step over the rows of one batch's state."""

    def __init__(self, model: ModelLayer, state: ModelState, program: Program) -> None:
        self.program = program
        self._weights = [weight.detach() for _, weight in _weights(_Step(model, ()))]
        self._state = state
        self._rows: dict[tuple[int, int], list[Tensor]] = {}
        self._slots = max([buffers.keys.shape[2] for buffers in states.buffers(state.blocks)], default=1)
        self._seen = torch.empty(self._slots, dtype=torch.uint8, device=self._weights[0].device)

    def __call__(self, first: int, tokens: Tensor, positions: Sequence[int]) -> Tensor:
        """The logits [b 1 v] after the next token [b 1] of rows first, first + 1, .., which stand at `positions`."""
        place = (first, len(tokens))
        if place not in self._rows:
            held = states.rows(self._state, slice(first, first + len(tokens)))
            self._rows[place] = [*states.flat(held), *self._weights]
        seen = self._seen[: min(max(positions) + 1, self._slots)]
        at = torch.tensor(positions, device=tokens.device)[:, None]
        return self.program.run([tokens, at, seen, *self._rows[place]])[0]


def compiled_step(
    model: ModelLayer, state: ModelState, say: Say = lambda words: None, cache: torch.dtype | None = None
) -> CompiledStep:
    """A compiled step for the rows of this state: loaded if it was compiled before, else compiled now.

    cache: the type that the state was reserved in.

    Raises `WorkError` where that cannot be: no compiler, a part that cannot be traced, or other logits than eager's.
    """
    if not isinstance(model, LanguageModelLayer):
        raise WorkError(f"a {model.spec.kind} decodes uncompiled")
    cache = cache or model.embedding.weight.dtype
    programs = _PROGRAMS.setdefault(model, {})
    if cache in programs:
        return CompiledStep(model, state, programs[cache])
    began = time.perf_counter()
    path = cache_folder() / f"decode-{_key(model, cache)}.pt2"
    fresh = not path.exists()
    try:
        if fresh:
            say("compiling a decoding step: a minute or so, kept for the next time")
            _compile(model, path, cache)
        program = Program(_load(path), 0.0, fresh)
        _check(model, program, cache)
    except WorkError:
        raise
    except Exception as error:
        reason = str(error).strip().splitlines() or [""]
        raise WorkError(f"{type(error).__name__}: {reason[0]}") from error
    programs[cache] = program._replace(seconds=time.perf_counter() - began)
    return CompiledStep(model, state, programs[cache])


def compiled_or_said(
    model: ModelLayer, state: ModelState, say: Say | None = None, cache: torch.dtype | None = None
) -> CompiledStep | None:
    """`compiled_step`, or None and one line of why not: given to `say`, a warning without it."""
    try:
        return compiled_step(model, state, say or (lambda words: None), cache)
    except WorkError as error:
        words = f"decoding goes on uncompiled: {error}"
        if say is None:
            warnings.warn(words, RuntimeWarning, stacklevel=2)
        else:
            say(words)
        return None


def cache_folder() -> Path:
    """Where programs are kept."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "windtunnel"


def _compile(model: ModelLayer, path: Path, cache: torch.dtype | None) -> None:
    """Trace, compile, and put the program where it belongs, all or nothing."""
    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler) is None:
        raise WorkError(f"there is no C++ compiler {compiler!r} (install one, or name it in CXX)")
    path.parent.mkdir(parents=True, exist_ok=True)
    arguments, shapes = _example(model, cache)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder, _quiet(), torch.no_grad():
        step = _Step(model, model.reserve(_ROWS, _CAPACITY, _CHUNK, cache).blocks)
        traced = torch.export.export(_Traced(step), arguments, dynamic_shapes=shapes, strict=False)
        settings = {"cpp.dynamic_threads": torch.get_num_threads() > 1}
        built = torch._inductor.aoti_compile_and_package(
            traced, package_path=str(Path(folder) / path.name), inductor_configs=settings
        )
        Path(built).replace(path)


def _load(path: Path) -> Callable[[list[Tensor]], list[Tensor]]:
    with _quiet():
        loader: Any = torch._inductor.aoti_load_package(str(path)).loader
    run: Callable[[list[Tensor]], list[Tensor]] = loader.run
    return run


def _example(model: ModelLayer, cache: torch.dtype | None) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """Inputs of the step, and which of their sizes vary: the number of rows, slots of buffers, those that are seen."""
    device, state = model.embedding.weight.device, model.reserve(_ROWS, _CAPACITY, _CHUNK, cache)
    rows = {0: torch.export.Dim("rows", min=1, max=1 << 16)}
    varying: dict[int, dict[int, Any]] = {}
    for buffers in states.buffers(state.blocks):
        if buffers.keys.shape[2] > 1:
            for tensor, axis in zip(buffers, (2, 2, 1), strict=True):
                varying[id(tensor)] = {axis: torch.export.Dim(f"slots{len(varying) // 3}", min=2)}
    tensors = states.flat(state.blocks)
    tokens = torch.zeros(_ROWS, 1, dtype=torch.int64, device=device)
    seen = torch.empty(_SEEN, dtype=torch.uint8, device=device)
    weights = [weight.detach() for _, weight in _weights(_Step(model, ()))]
    shapes: tuple[Any, ...] = (
        rows,
        rows,
        {0: torch.export.Dim("seen", min=1)},
        [rows | varying.get(id(tensor), {}) for tensor in tensors],
        [{} for _ in weights],
    )
    return (tokens, torch.zeros_like(tokens), seen, tensors, weights), shapes


@torch.inference_mode()
def _check(model: ModelLayer, program: Program, cache: torch.dtype | None = None) -> None:
    """Some steps beside the eager ones, from an empty state; `WorkError` where the logits or the states differ.

    A cache of narrower numbers may round one up where the other rounds down.
    """
    allowed = TOLERANCE if cache is None else max(TOLERANCE, torch.finfo(cache).eps)
    batch, device = 2, model.embedding.weight.device
    ours, theirs = (model.reserve(batch, 8, 4, cache) for _ in range(2))
    compiled = CompiledStep(model, ours, program)
    eager = _Step(model, theirs.blocks)
    vocab = model.spec.vocab
    for place in range(3):
        tokens = torch.tensor([[(7 * place + row) % vocab] for row in range(batch)], device=device)
        at, seen = torch.full_like(tokens, place), torch.empty(place + 1)
        expected = eager(tokens, at, seen, states.flat(theirs.blocks))
        found = compiled(0, tokens, [place] * batch)
        pairs = zip(states.flat(ours.blocks), states.flat(theirs.blocks), strict=True)
        error = max(_difference(one, other) for one, other in [(found, expected), *pairs])
        if not error <= allowed:
            raise WorkError(f"the compiled step differs from the eager one by {error:.2g}")


def _difference(one: Tensor, other: Tensor) -> float:
    """The largest difference, over the largest number above 1."""
    if not one.numel():
        return 0.0
    return float((one - other).abs().max()) / max(1.0, float(other.abs().max()))


def _key(model: ModelLayer, cache: torch.dtype | None = None) -> str:
    """What a program depends on: the spec, the type of caches, this package's own code, torch, the machine."""
    weight = model.embedding.weight
    parts = [
        model.spec.fingerprint(),
        _sources(),
        torch.__version__,
        hardware_name(weight.device),
        str(weight.dtype),
        str(weight.device.type),
        str(cache or weight.dtype),
        "one thread" if torch.get_num_threads() == 1 else "threads",
    ]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:24]


@functools.cache
def _sources() -> str:
    """A hash of the package's own code."""
    root = Path(__file__).parents[1]
    files = [*root.glob("*.py"), *(file for room in _ROOMS for file in (root / room).glob("*.py"))]
    return hashlib.sha256(b"".join(file.read_bytes() for file in sorted(files))).hexdigest()


_ROOMS = ("kernels", "mixers", "mlps", "positions", "inference")


def _weights(step: _Step) -> list[tuple[str, Tensor]]:
    return [*step.named_parameters(), *step.named_buffers()]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without torch's remarks on its own ways, and without the whole graph of what it could not trace."""
    log = logging.getLogger("torch")
    handlers, log.handlers = log.handlers, [logging.NullHandler()]
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        log.handlers = handlers
