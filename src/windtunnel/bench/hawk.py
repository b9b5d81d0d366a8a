"""A training step of Hawk against transformers' RecurrentGemma of the same shape, on the same weights and tokens.

Theirs walks along the sequence in Python and writes each state into a tensor that autograd follows.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import torch

from windtunnel import build, recipes
from windtunnel.bench.rivals.recurrent_gemma import load
from windtunnel.bench.spread import Ratio
from windtunnel.bench.turns import Say, compared, take_turns
from windtunnel.kernels import tune_allocator
from windtunnel.model import LanguageModel
from windtunnel.report.tables import Table


@dataclasses.dataclass(frozen=True)
class Shape:
    """Sizes of the model and its batch; by default 761 thousand parameters."""

    vocab: int = 256
    layers: int = 3
    width: int = 128
    recurrent_width: int = 192
    gate_blocks: int = 4
    length: int = 1024
    batch: int = 8

    def spec(self) -> LanguageModel:
        """Hawk with what RecurrentGemma always has: scaled embeddings and bounded logits."""
        sizes = dataclasses.asdict(self)
        context = sizes.pop("length")
        del sizes["batch"]
        spec = recipes.get("griffin")(**sizes, context=context, pattern="R", scaled=True, soft_cap=30.0)
        assert isinstance(spec, LanguageModel)
        return spec


def run(rounds: int, threads: int, say: Say, shape: Shape = Shape()) -> dict[str, Any]:
    """Seconds of a loss and its gradients, in turns, and both losses."""
    tune_allocator()
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    losses: dict[str, float] = {}
    try:
        seconds = take_turns(_contestants(shape, losses), rounds, say)
    finally:
        torch.set_num_threads(before)
    return {
        "benchmark": "hawk",
        "versions": {"torch": torch.__version__},
        "settings": {"shape": dataclasses.asdict(shape), "rounds": rounds, "threads": threads},
        "losses": losses,
        "contestants": compared(seconds, "windtunnel"),
    }


def _contestants(shape: Shape, losses: dict[str, float]) -> dict[str, Callable[[], object]]:
    ours: Any = build(shape.spec())
    theirs = load(ours)
    draw = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, shape.vocab, (shape.batch, shape.length), generator=draw)

    def our_loss() -> Any:
        return ours.loss(tokens[:, :-1], tokens[:, 1:]).total

    def their_loss() -> Any:
        return theirs(tokens, labels=tokens, use_cache=False).loss

    def step(name: str, model: Any, loss_of: Callable[[], Any]) -> Callable[[], object]:
        def run_once() -> None:
            model.zero_grad()
            loss = loss_of()
            loss.backward()
            losses[name] = float(loss.detach())

        return run_once

    return {
        "windtunnel": step("windtunnel", ours, our_loss),
        "transformers": step("transformers", theirs, their_loss),
    }


def table(result: dict[str, Any]) -> Table:
    """Both contestants."""
    shape = Shape(**result["settings"]["shape"])
    rows = [
        (
            each["label"],
            f"{1e3 * each['median_seconds']:.0f}",
            str(Ratio(**each["ratio"])),
            f"{result['losses'][each['label']]:.5f}",
        )
        for each in result["contestants"]
    ]
    return Table(
        caption=f"Hawk, a training step of {shape.batch} sequences of {shape.length}",
        columns=("contestant", "ms (median)", "time over windtunnel's [95 %]", "loss"),
        rows=rows,
        numeric=(1, 2, 3),
    )
