"""A compiled decoding step gives what the eager one gives; in its own process, as the tests check shapes of every call.

`python -m tests.inference.compiled FOLDER CASE[:TYPE]...` exits with 0 if it does; programs are kept in FOLDER. TYPE is
that of the caches, where it is not the model's own.
"""

import os
import sys

import torch
from torch import Tensor

from tests.recipes.cases import model_of, tokens_for
from windtunnel.inference import states
from windtunnel.inference.batch import Batch
from windtunnel.inference.engine import CACHES, Engine, EngineSettings
from windtunnel.inference.programs import cache_folder
from windtunnel.inference.request import Request
from windtunnel.inference.sampling import Sampling
from windtunnel.root import ModelLayer

SINGLE = 1e-5  # float32, over the largest number above 1: the compiler fuses and reorders
BLOCKS = ("llama-grouped", "griffin")  # that must be compiled, not only single tokens
LENGTH = 40  # past every window of the cases


def main(case: str, kept: str) -> None:
    """Rows at different places, singly and together, in blocks too; then texts of an engine with drafts."""
    model = model_of(case, layers=2).eval()
    cache = CACHES[kept] if kept else None
    allowed = SINGLE if cache is None else torch.finfo(cache).eps  # where one rounds up and the other down
    ours, theirs = (Batch(model, 3, 64, 16, compiled=compiled, cache=cache) for compiled in (True, False))
    assert ours.step is not None
    assert ours.step.programs.single.fresh
    block = ours.step.programs.block
    assert block is None or block.fresh
    assert block is not None or case not in BLOCKS
    text = tokens_for(model.spec, batch=3, length=LENGTH).tolist()
    for first, rows, count in _feeds():
        chosen = [text[row][ours.lengths[row] : ours.lengths[row] + count] for row in range(first, first + rows)]
        with torch.inference_mode():
            close(ours.feed(first, chosen, last=count), theirs.feed(first, chosen, last=count), allowed)
        for one, other in zip(states.flat(ours.state.blocks), states.flat(theirs.state.blocks), strict=True):
            close(one, other, allowed)
    loaded = Batch(
        model_of(case, seed=1, layers=2).eval(), 1, 48, 8, compiled=True, cache=cache
    )  # other weights, the same program
    assert loaded.step is not None
    assert not loaded.step.programs.single.fresh
    assert len(list(cache_folder().glob("decode-*"))) == (1 if block is None else 2)
    if cache is None:
        assert texts(model, compiled=True) == texts(model, compiled=False)


def _feeds() -> list[tuple[int, int, int]]:
    """First row, rows and tokens of each: a block of one, single tokens of some rows or all, more blocks."""
    singly = [(place % 3, 1, 1) for place in range(6)]
    return [(1, 1, 5), *singly, (0, 3, 4), *[(0, 3, 1)] * 7, (1, 2, 2), (0, 2, 1), (0, 3, 12), (2, 1, 1)]


def texts(model: ModelLayer, compiled: bool) -> list[list[int]]:
    """Greedy texts with drafts by prompt lookup, which are verified, kept and rewound."""
    engine = Engine(model, settings=EngineSettings(slots=2, chunk=8, compiled=compiled), draft="lookup")
    prompts = tokens_for(model.spec, batch=3, length=9, seed=5).tolist()
    found: dict[int, list[int]] = {
        engine.submit(Request(prompt=tuple(prompt * 2), sampling=Sampling(temperature=0), tokens=12)): []
        for prompt in prompts
    }
    while engine.busy:
        for piece in engine.step():
            found[piece.request] += [] if piece.token is None else [piece.token]
    return list(found.values())


def close(one: Tensor, other: Tensor, allowed: float) -> None:
    """Equal within rounding; infinite, as a maximum of nothing is, where the other is."""
    assert torch.equal(one.isinf(), other.isinf())
    one, other = (torch.where(each.isinf(), each.sign(), each) for each in (one, other))
    if one.numel():
        worst = float((one.double() - other.double()).abs().max()) / max(1.0, float(other.abs().max()))
        assert worst <= allowed, f"{worst:.2g}"


if __name__ == "__main__":
    torch.set_num_threads(1)
    for name in sys.argv[2:]:
        os.environ["XDG_CACHE_HOME"] = f"{sys.argv[1]}/{name}"
        main(*name.partition(":")[::2])
