"""One optimiser step, and the state that it changes."""

import time
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from windtunnel.checkpoint import fill, model_tensors
from windtunnel.data.sampler import Batch
from windtunnel.distributed.sharding import Parts, Scorer
from windtunnel.distributed.team import ALONE, Team
from windtunnel.execution import Resolved
from windtunnel.training.ahead import Ahead
from windtunnel.training.optimisers import build_optimisers
from windtunnel.training.optimisers.adafactor import Adafactor
from windtunnel.training.optimisers.state import flatten_state, restore_state
from windtunnel.training.schedule import learning_rate
from windtunnel.training.settings import TrainingSettings
from windtunnel.training.workload import Order

Snapshot = dict[str, dict[str, Tensor]]


class Step(NamedTuple):
    """What one optimiser step gives: the learning rate; on the device the cross-entropy in nats, the gradient's norm
    before clipping, and what the layers report (their own losses and metrics, by name)."""

    rate: float
    loss: Tensor
    norm: Tensor
    layers: dict[str, Tensor]


class Trainer:
    """A model with its optimiser and its data. Step n depends on weights, optimiser state, n and skips alone.

    team: the processes that train the model together; each calls this with the model that `distributed.build` made,
    reads its own rows of a batch, and sees the losses and norms of the whole.
    """

    def __init__(
        self, model: nn.Module, sampler: Order, settings: TrainingSettings, execution: Resolved, team: Team = ALONE
    ) -> None:
        self.model: Any = execution.prepare(model).train()
        self.parts = Parts(self.model, team)
        self.parameters = [weight for weight in self.parts.weights.values() if weight.requires_grad]
        self.optimisers = build_optimisers(model, settings)
        self.parts.adopt(self.optimisers)
        for optimiser in self.optimisers:
            if isinstance(optimiser, Adafactor):
                optimiser.mean_squares = self.parts.mean_squares
        self.settings, self.execution, self.team = settings, execution, team
        self.data = Ahead(sampler, self._own_sequences_at, execution.workers, pinned=execution.device.type == "cuda")
        self.skips: list[tuple[int, int]] = []  # (step, sequences passed over before it), beyond the settings'

    def advance(self, step: int, horizon: float | None) -> Step:
        """One step of the loop: data, loss, gradients, clipping, update, projection."""
        rate = learning_rate(self.settings, step, horizon)
        for optimiser in self.optimisers:
            for group in optimiser.param_groups:
                group["lr"] = rate * group.get("factor", 1.0)
        self._seed(step)
        loss, layers = self._backward(step)
        norm = self._clip()
        for optimiser in self.optimisers:
            optimiser.step()
        self.model.project_()
        self.parts.forget_gradients()
        return Step(rate, loss, norm, layers)

    def sequences_at(self, step: int) -> range:
        """Which sequences of the data's order a step is trained on."""
        planned = self.settings.sequences_at(step)
        passed = sum(sequences for start, sequences in self.skips if start <= step)
        return range(planned.start + passed, planned.stop + passed)

    def _own_sequences_at(self, step: int) -> range:
        """Those of them that this process reads."""
        sequences = self.sequences_at(step)
        mine = self.team.rows(len(sequences))
        return sequences[mine.start : mine.stop]

    def warm_up(self) -> float:
        """Compile by running forward and backward once without an update; returns the seconds it took."""
        began = time.perf_counter()
        self._seed(0)
        self._backward(0)
        self.parts.forget_gradients()
        self.execution.synchronize()
        return time.perf_counter() - began

    @property
    def scorer(self) -> nn.Module:
        """What `evaluate_loss` is to call."""
        return self.model if self.team.size == 1 else Scorer(self.parts)

    def snapshot(self) -> Snapshot:
        """Copies of the weights and of the optimiser's state, as far as this process holds them, in main memory."""
        return {
            "model": _copied(self._tensors()),
            "optimiser": _copied(flatten_state(self.optimisers, self.parts.weights)),
        }

    def restore(self, snapshot: Snapshot, source: object) -> None:
        """Go back to a snapshot; `source` names it in errors."""
        fill(self._tensors(), snapshot["model"], source)
        restore_state(self.optimisers, self.parts.weights, snapshot["optimiser"])

    def begin_with(self, weights: dict[str, Tensor], source: object) -> None:
        """Take weights in place of the drawn ones, in the dtype that training keeps them in; `source` names them."""
        held = self._tensors()
        kept = {name: each.to(held[name].dtype) if name in held else each for name, each in weights.items()}
        fill(held, kept, source)

    def _tensors(self) -> dict[str, Tensor]:
        if self.team.size == 1:
            return model_tensors(self.model)
        return {name: weight.detach() for name, weight in self.parts.weights.items()}

    def _seed(self, step: int) -> None:
        """Whatever a layer draws from torch's global generator is a function of (seed, step)."""
        seed = self._randomness(step)
        torch.default_generator.manual_seed(seed)
        if self.execution.device.type == "cuda":
            torch.cuda.manual_seed(seed)

    def _randomness(self, step: int, part: int = 0) -> int:
        return ((self.settings.seed * 1_000_003 + step) * 1_009 + part) % 2**63

    def _backward(self, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        whole = len(self.sequences_at(step))
        mine = self.team.rows(whole)
        batch = self._own_part(self.data.take(step))
        size = len(batch.tokens)
        rows = min(whole, self.settings.batch_size // self.settings.accumulation)
        divided = whole > min(rows, size) or self.team.mesh.context > 1
        counted = self._counted(batch.targets) if divided else 0
        total: Tensor | None = None
        layers: dict[str, Tensor] = {}
        for first in range(0, size, rows):
            targets = batch.targets[first : first + rows]
            share = float((targets >= 0).sum()) / counted if counted else 1.0
            documents = None
            if batch.documents is not None and self.model.spec.packs_documents:
                documents = self._to_device(batch.documents[first : first + rows])
            with self.execution.autocast():
                tokens = self._to_device(batch.tokens[first : first + rows])
                seed = self._randomness(step, (mine.start + first) // rows)
                begin = self.team.index("context") * tokens.shape[1]
                loss = self.model.loss(tokens, self._to_device(targets), documents, seed, self.settings.z_loss, begin)
            (loss.total * share).backward() if share != 1.0 else loss.total.backward()
            part = loss.cross_entropy.detach() * share
            total = part if total is None else total + part
            for name, value in {**loss.losses, **loss.metrics}.items():
                reported = value.detach() * share
                layers[name] = layers[name] + reported if name in layers else reported
        assert total is not None
        return self._summed(total, layers)

    def _own_part(self, batch: Batch) -> Batch:
        """The tokens of the rows that this process trains on; of the documents, those before them too."""
        own = self.team.columns(batch.tokens.shape[1])
        documents = None if batch.documents is None else batch.documents[:, : own.stop]
        return Batch(batch.tokens[:, own.start : own.stop], batch.targets[:, own.start : own.stop], documents)

    def _counted(self, targets: Tensor) -> int:
        """Targets of the whole step that count."""
        return int(self.team.of_rows((targets >= 0).sum()))

    def _summed(self, loss: Tensor, layers: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss and what layers report, of the whole step: every process has its share of each."""
        if self.team.size == 1:
            return loss, layers
        parts = {"": loss, **layers}
        whole = self.team.of_rows(torch.cat([value.float().flatten() for value in parts.values()]))
        pieces = torch.split(whole, [value.numel() for value in parts.values()])
        summed = {name: piece.view(parts[name].shape) for name, piece in zip(parts, pieces, strict=True)}
        return summed.pop(""), summed

    def _clip(self) -> Tensor:
        """Scale the gradients to a global norm of at most `clip`; returns the norm they had."""
        self.parts.take_gradients()
        norm = self.parts.norm([parameter.grad for parameter in self.parameters if parameter.grad is not None])
        clip = self.settings.clip
        if clip is not None and (norm.device.type != "cpu" or not norm <= clip):  # a GPU is not asked: it would wait
            nn.utils.clip_grads_with_norm_(self.parameters, clip, norm)
        return norm

    def _to_device(self, values: Tensor) -> Tensor:
        if self.execution.device.type != "cuda":
            return values.to(self.execution.device)
        return values.pin_memory().to(self.execution.device, non_blocking=True)


def _copied(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors.items()}
