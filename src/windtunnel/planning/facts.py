"""What a plan needs to know of a model, asked of it once, on the meta device."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import torch

from windtunnel.errors import InputError
from windtunnel.init import roles
from windtunnel.layer import RoleKind
from windtunnel.ledger import Ledger, ledger
from windtunnel.mlps import Experts
from windtunnel.model import Block, BlockLayer, LanguageModel
from windtunnel.planning.activations import Activations, activations
from windtunnel.planning.mesh import Mesh
from windtunnel.residuals import Parallel
from windtunnel.root import Model, ModelLayer
from windtunnel.spec import Spec

_MATRICES = ("embedding", "unembedding", "reads", "writes", "filter")


class Weight(NamedTuple):
    """One parameter. block: the index of its layer, None for tables and the final norm."""

    name: str
    kind: RoleKind
    shape: tuple[int, ...]
    numel: int
    block: int | None
    expert: bool
    key_value: bool


class Held(NamedTuple):
    """Parameters that one device is responsible for before `shard` divides them: all its layers' and the tables'.

    dense and experts: of the layers. tables: the embedding, the unembedding and the final norm.
    largest: the largest layer. matrices: those that Muon takes.
    """

    dense: float
    experts: float
    tables: float
    largest: float
    matrices: float

    @property
    def total(self) -> float:
        """Everything but `largest` and `matrices`, which are part of it."""
        return self.dense + self.experts + self.tables


@dataclass(frozen=True)
class Facts:
    """A spec at sequences of `length` tokens in a precision."""

    spec: Model
    length: int
    dtype: torch.dtype

    @cached_property
    def model(self) -> ModelLayer:
        """The module, without memory."""
        with torch.device("meta"):
            return self.spec.build()

    @cached_property
    def ledger(self) -> Ledger:
        """Parameters and operations, as fused kernels count them."""
        return ledger(self.spec, self.length, maps_kept=False)

    @cached_property
    def activations(self) -> Activations:
        """What is kept for the backward pass."""
        return activations(self.spec, self.length, self.dtype)

    @cached_property
    def blocks(self) -> tuple[Block, ...]:
        """The layers."""
        return tuple(block for block in self.spec.layers if isinstance(block, Block))

    @cached_property
    def _different(self) -> tuple[Block, ...]:
        return tuple(dict.fromkeys(self.blocks))

    @cached_property
    def weights(self) -> tuple[Weight, ...]:
        """Every parameter."""
        found = []
        for name, role in roles(self.model).items():
            shape = tuple(self.model.get_parameter(name).shape)
            path = name.split(".")
            block = int(path[1]) if path[0] == "blocks" else None
            last = path[-2] if path[-1] in ("weight", "bias") else path[-1]
            numel = self.model.get_parameter(name).numel()
            found.append(
                Weight(
                    name, role.kind, shape, numel, block, role.mechanism == "experts", "mixer" in path and last in "kv"
                )
            )
        return tuple(found)

    @cached_property
    def experts(self) -> tuple[Experts, ...]:
        """The layers' mixtures of experts."""
        return tuple(block.mlp for block in self.blocks if isinstance(block.mlp, Experts))

    @cached_property
    def branches(self) -> int:
        """How often, in all layers, something that a tensor-parallel group computes comes back to the stream."""
        count = 0
        for block in self.blocks:
            parallel = isinstance(block.residual, Parallel) or block.mlp is None
            count += 1 if parallel else 2
        return count

    def heads(self, block: Block) -> int | None:
        """Query heads of a layer's mixer, None where it has none."""
        return _count(block.mixer.core, "heads")

    def kv_heads(self, block: Block) -> int | None:
        """Key/value heads of a layer's mixer, None where it has no heads."""
        return _count(block.mixer.core, "kv_heads") or self.heads(block)

    def held(self, tensor: int, expert: int, pipeline: int) -> Held:
        """Parameters of one device of a mesh; of the fullest stage of a pipeline."""
        key = (tensor, expert, pipeline)
        if key not in self._held:
            self._held[key] = self._divide(*key)
        return self._held[key]

    @cached_property
    def _held(self) -> dict[tuple[int, int, int], Held]:
        return {}

    def _divide(self, tensor: int, expert: int, pipeline: int) -> Held:
        by_block: dict[int, list[float]] = {}
        tables = matrices = 0.0
        for weight in self.weights:
            share = self._share(weight, tensor) / (expert if weight.expert else 1)
            size = weight.numel * share
            if weight.block is None:
                tables += size
                continue
            by_block.setdefault(weight.block, [0.0, 0.0])[weight.expert] += size
            if weight.kind in ("reads", "writes", "inner") and len(weight.shape) == 2:
                matrices += size / pipeline
        layers = -(-len(by_block) // pipeline)
        stages = [list(by_block)[start : start + layers] for start in range(0, len(by_block), layers)]
        fullest = max(stages, key=lambda stage: sum(sum(by_block[index]) for index in stage))
        dense, experts = (sum(by_block[index][part] for index in fullest) for part in (0, 1))
        return Held(dense, experts, tables, max(map(sum, by_block.values())), matrices)

    def _share(self, weight: Weight, tensor: int) -> float:
        """The part of a parameter that one of `tensor` devices holds: K/V heads that cannot be divided are copied."""
        if weight.kind not in _MATRICES or len(weight.shape) < 2:
            return 1.0
        if weight.key_value and weight.block is not None:
            heads = self.kv_heads(self.blocks[weight.block])
            if heads is not None:
                return 1 / min(tensor, heads)
        return 1 / tensor

    def state_bytes(self, length: int, tensor: int, element: int) -> float:
        """Decoding state of one sequence on one of `tensor` devices: key/value heads are divided, one is copied."""
        if not isinstance(self.spec, LanguageModel):
            return float(self.model.state_bytes(length, element))
        total = 0.0
        for block, layer in zip(self.blocks, self.model.get_submodule("blocks").children(), strict=True):
            assert isinstance(layer, BlockLayer)
            heads = self.kv_heads(block)
            total += layer.state_bytes(length, element) / (tensor if heads is None else min(tensor, heads))
        return total

    def check(self, mesh: Mesh) -> None:
        """Refuse a mesh that does not divide the model, naming what is not divided."""
        if len(self.blocks) % mesh.pipeline:
            raise InputError(f"mesh: pipeline {mesh.pipeline} does not divide {len(self.blocks)} layers")
        if self.length % mesh.context:
            raise InputError(f"mesh: context {mesh.context} does not divide sequences of {self.length} tokens")
        if mesh.expert > 1 and not self.experts:
            raise InputError(f"mesh: expert {mesh.expert}, but {self.spec.kind} has no experts")
        for experts in self.experts:
            if experts.experts % mesh.expert:
                raise InputError(f"mesh: expert {mesh.expert} does not divide {experts.experts} experts")
        self._check_tensor(mesh.tensor)

    def _check_tensor(self, tensor: int) -> None:
        if tensor == 1:
            return
        for block in self._different:
            heads, groups = self.heads(block), self.kv_heads(block)
            if heads is not None and heads % tensor:
                raise InputError(f"mesh: tensor {tensor} does not divide {heads} heads")
            if groups is not None and groups % tensor and tensor % groups:
                raise InputError(f"mesh: tensor {tensor} and {groups} key/value heads: neither divides the other")
        for weight in self.weights:
            side = {"reads": -2, "writes": -1}.get(weight.kind)
            if side is None or weight.key_value or len(weight.shape) < 2:
                continue
            if weight.shape[side] % tensor:
                raise InputError(f"mesh: tensor {tensor} does not divide the {weight.shape[side]} of {weight.name}")

    def divides(self, mesh: Mesh) -> bool:
        """Whether the model can be laid out on a mesh."""
        try:
            self.check(mesh)
        except InputError:
            return False
        return True


def _count(part: Spec, name: str) -> int | None:
    value: Any = vars(part).get(name)
    return value if isinstance(value, int) else None
