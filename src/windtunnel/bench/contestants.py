"""One training step of each contestant, on the same weights and the same batch."""

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from windtunnel.bench.shape import Shape
from windtunnel.data.sampler import Batch
from windtunnel.execution import Execution
from windtunnel.kernels.memory import tune_allocator
from windtunnel.training.loop import Trainer
from windtunnel.training.settings import TrainingSettings

Step = Callable[[], float]
LEARNING_RATE, WEIGHT_DECAY, BETAS = 1e-4, 0.1, (0.9, 0.95)


class OneBatch:
    """A sampler that always draws the same batch."""

    def __init__(self, batch: Batch) -> None:
        self.one = batch

    def read(self, sequences: range) -> Batch:
        return self.one


def settings(shape: Shape, tokens: int) -> TrainingSettings:
    """The settings of Windtunnel's own runs here."""
    return TrainingSettings(
        tokens=tokens,
        context=shape.context,
        batch_size=shape.batch_size,
        learning_rate=LEARNING_RATE,
        weight_decay=WEIGHT_DECAY,
        betas=BETAS,
        warmup=0.0,
        evaluation_tokens=1024,
    )


def write_problem(shape: Shape, path: Path) -> None:
    """Weights and a batch of random tokens, for every contestant to read."""
    draw = torch.Generator().manual_seed(0)
    tokens = torch.randint(shape.vocab, (shape.batch_size, shape.context + 1), generator=draw)
    model = shape.spec().build().initialize(0)
    torch.save({"weights": model.state_dict(), "tokens": tokens}, path)


def prepare(name: str, shape: Shape, problem: Path, fused: bool, allocator: bool, threads: int) -> Step:
    """The step of "windtunnel", "transformers" or "plain"; a call trains once and returns the loss it had."""
    torch.set_num_threads(threads)
    if allocator:
        tune_allocator()
    stored = torch.load(problem, weights_only=True)
    tokens, targets = stored["tokens"][:, :-1].contiguous(), stored["tokens"][:, 1:].contiguous()
    if name == "windtunnel":
        return _ours(shape, stored["weights"], Batch(tokens, targets, None), allocator, threads)
    if name == "transformers":
        from windtunnel.bench.rivals import hugging_face

        model = hugging_face.load(shape, stored["weights"])
        return usual(model, lambda: model(input_ids=tokens, labels=tokens, shift_labels=targets).loss, fused)
    from windtunnel.bench.rivals import plain

    own = plain.load(shape, stored["weights"])
    return usual(own, lambda: own(tokens, targets), fused)


def _ours(shape: Shape, weights: dict[str, Tensor], batch: Batch, allocator: bool, threads: int) -> Step:
    resolved = Execution(device="cpu", threads=threads).resolve()
    model = shape.spec().build()
    model.load_state_dict(weights)
    sampler: Any = OneBatch(batch)
    trainer = Trainer(model, sampler, settings(shape, 1000 * shape.step_tokens), resolved)

    def step() -> float:
        with resolved.applied() if allocator else nullcontext():
            _, loss, norm, _ = trainer.advance(0, 1.0)
            norm.item()
            return loss.item()

    return step


def usual(model: nn.Module, loss_of: Callable[[], Tensor], fused: bool) -> Step:
    """The loop that everyone writes: backward, clip, AdamW (decay on matrices alone), the loss read every step."""
    matrices = [parameter for parameter in model.parameters() if parameter.dim() >= 2]
    vectors = [parameter for parameter in model.parameters() if parameter.dim() < 2]
    groups = [{"params": matrices, "weight_decay": WEIGHT_DECAY}, {"params": vectors, "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, lr=LEARNING_RATE, betas=BETAS, fused=fused)
    model.train()

    def step() -> float:
        loss = loss_of()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        return loss.item()

    return step
