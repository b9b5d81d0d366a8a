"""Compiled programs of decoding: traced, compiled and loaded, and kept in the user's cache folder.

There are two for a model: one for calls with a token for each row, one for blocks of two and more. Weights, states, the
numbers of rows and tokens and the visible part of the buffers are inputs, so both serve all runs of a spec, at every
length.
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
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from windtunnel.errors import WorkError
from windtunnel.execution import hardware_name
from windtunnel.inference import states
from windtunnel.kernels.few_rows import SHIM, library
from windtunnel.layer import Context
from windtunnel.root import ModelLayer, ModelState

Positions = Literal["single", "block"]
LONGEST = 64  # tokens of a block; longer ones are prompts, where an eager pass is as fast
_SAID: dict[Positions, str] = {"single": "single tokens", "block": "blocks of tokens"}
_PRODUCT = torch.ops.windtunnel.few_rows.default
_ROWS, _TOKENS, _CAPACITY, _CHUNK, _SEEN = 4, 5, 320, 64, 192  # of the example: any will do, these resemble what comes


class Program(NamedTuple):
    """A compiled step and what it took to have it. fresh: compiled now, not loaded."""

    run: Callable[[list[Tensor]], list[Tensor]]
    seconds: float
    fresh: bool


class Step(nn.Module):
    """What is compiled. tokens, positions: [b t]. seen: as many numbers as there are visible slots. tensors: states."""

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

    def __init__(self, step: Step) -> None:
        super().__init__()
        self._names = [name for name, _ in _named(step)]
        self._call = functools.partial(torch.func.functional_call, step)

    def forward(
        self, tokens: Tensor, positions: Tensor, seen: Tensor, tensors: list[Tensor], weights: list[Tensor]
    ) -> Tensor:
        out: Tensor = self._call(dict(zip(self._names, weights, strict=True)), (tokens, positions, seen, tensors))
        return out


def cache_folder() -> Path:
    """Where programs are kept."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "windtunnel"


def program(model: ModelLayer, cache: torch.dtype | None, positions: Positions, say: Callable[[str], None]) -> Program:
    """The program for such calls: loaded if it was compiled before, else compiled now. Raises whatever goes wrong."""
    began = time.perf_counter()
    path = cache_folder() / f"decode-{_key(model, cache, positions)}.pt2"
    fresh = not path.exists()
    compiler = os.environ.get("CXX", "g++")
    if fresh:
        say(f"compiling a decoding step ({_SAID[positions]}): a minute or so, kept for the next time")
        if shutil.which(compiler) is None:
            raise WorkError(f"there is no C++ compiler {compiler!r} (install one, or name it in CXX)")
    if _products_of_few_rows(model):
        library()
    if fresh:
        _compile(model, path, cache, positions)
    return Program(_load(path), time.perf_counter() - began, fresh)


def _products_of_few_rows(model: ModelLayer) -> bool:
    """Whether the products of its steps are those of `kernels.few_rows`."""
    weight = model.embedding.weight
    return weight.dtype == torch.float32 and weight.device.type == "cpu"


def _compile(model: ModelLayer, path: Path, cache: torch.dtype | None, positions: Positions) -> None:
    """Trace, compile, and put the program where it belongs, all or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    arguments, shapes = _example(model, cache, positions)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder, _quiet(), torch.no_grad():
        step = Step(model, model.reserve(_ROWS, _CAPACITY, _CHUNK, cache).blocks)
        traced = torch.export.export(_Traced(step), arguments, dynamic_shapes=shapes, strict=False)
        settings: dict[str, Any] = {"cpp.dynamic_threads": torch.get_num_threads() > 1}
        if _products_of_few_rows(model):
            _replace_products(traced.graph_module)
            settings["aot_inductor.custom_ops_to_c_shims"] = {_PRODUCT: [SHIM]}
        built = torch._inductor.aoti_compile_and_package(
            traced, package_path=str(Path(folder) / path.name), inductor_configs=settings
        )
        Path(built).replace(path)


def _replace_products(traced: torch.fx.GraphModule) -> None:
    """Have every product with a matrix made by `kernels.few_rows`, and biases added behind it."""
    graph = traced.graph
    for node in graph.find_nodes(op="call_function", target=torch.ops.aten.linear.default):
        x, weight, *bias = node.args
        if weight.meta["val"].dtype != torch.float32 or x.meta["val"].dtype != torch.float32:
            continue
        with graph.inserting_before(node):
            new = graph.call_function(_PRODUCT, (x, weight))
            new.meta["val"] = node.meta["val"]
            if bias and bias[0] is not None:
                new = graph.call_function(torch.ops.aten.add.Tensor, (new, bias[0]))
                new.meta["val"] = node.meta["val"]
        node.replace_all_uses_with(new)
        graph.erase_node(node)
    traced.recompile()


def _load(path: Path) -> Callable[[list[Tensor]], list[Tensor]]:
    with _quiet():
        loader: Any = torch._inductor.aoti_load_package(str(path)).loader
    run: Callable[[list[Tensor]], list[Tensor]] = loader.run
    return run


def _example(
    model: ModelLayer, cache: torch.dtype | None, positions: Positions
) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """Inputs of the step, and which of their sizes vary: rows, tokens of a block, slots of buffers, those seen."""
    device, state = model.embedding.weight.device, model.reserve(_ROWS, _CAPACITY, _CHUNK, cache)
    rows = {0: torch.export.Dim("rows", min=1, max=1 << 16)}
    varying: dict[int, dict[int, Any]] = {}
    for buffers in states.buffers(state.blocks):
        if buffers.keys.shape[2] > 1:
            for tensor, axis in zip(buffers, (2, 2, 1), strict=True):
                varying[id(tensor)] = {axis: torch.export.Dim(f"slots{len(varying) // 3}", min=2)}
    tensors = states.flat(state.blocks)
    count = 1 if positions == "single" else _TOKENS
    tokens = torch.zeros(_ROWS, count, dtype=torch.int64, device=device)
    calls = rows if positions == "single" else rows | {1: torch.export.Dim("tokens", min=2, max=LONGEST)}
    seen = torch.empty(_SEEN, dtype=torch.uint8, device=device)
    weights = weights_of(model)
    shapes: tuple[Any, ...] = (
        calls,
        calls,
        {0: torch.export.Dim("seen", min=1)},
        [rows | varying.get(id(tensor), {}) for tensor in tensors],
        [{} for _ in weights],
    )
    return (tokens, torch.zeros_like(tokens), seen, tensors, weights), shapes


def _key(model: ModelLayer, cache: torch.dtype | None = None, positions: Positions = "single") -> str:
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
        positions,
        "one thread" if torch.get_num_threads() == 1 else "threads",
    ]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:24]


@functools.cache
def _sources() -> str:
    """A hash of the package's own code that a step is made of."""
    root = Path(__file__).parents[1]
    files = [*root.glob("*.py"), *(file for room in _ROOMS for file in (root / room).glob("*.py"))]
    files += [Path(__file__), Path(states.__file__)]
    return hashlib.sha256(b"".join(file.read_bytes() for file in sorted(files))).hexdigest()


_ROOMS = ("kernels", "mixers", "mlps", "positions")


def weights_of(model: ModelLayer) -> list[Tensor]:
    """What a program takes beside the states, in its order."""
    return [weight.detach() for _, weight in _named(Step(model, ()))]


def _named(step: Step) -> list[tuple[str, Tensor]]:
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
