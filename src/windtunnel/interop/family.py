"""What a family is: a configuration and a spec that say the same, and the steps between their weights."""

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

from windtunnel.errors import InputError
from windtunnel.interop.config import Config
from windtunnel.interop.weights import Operation, Rows, Weight
from windtunnel.mixers import Attention, Mixer
from windtunnel.model import LanguageModel
from windtunnel.positions import Rope
from windtunnel.root import Model
from windtunnel.spec import Spec

AnySpec = TypeVar("AnySpec", bound=Spec)


@dataclass(frozen=True)
class Family:
    """One `model_type` of transformers.

    read: the spec of a configuration. write: the attributes of a spec, which it may assume to be of the family: what
    they do not say is found out by reading them back. steps: between a checkpoint's tensors and a model's; some
    families have had several spellings, told apart by the names that a checkpoint has (none: the one to write).
    prefix: of the names, which checkpoints of the bare model lack. aliases: their older names of a tensor.
    """

    name: str
    architecture: str
    read: Callable[[Config], Model]
    write: Callable[[Any], dict[str, Any]]
    steps: Callable[[Any, Collection[str]], list[Weight]]
    prefix: str = ""
    aliases: tuple[tuple[str, str], ...] = ()


def the_mixers(spec: Any, kind: type[AnySpec]) -> list[AnySpec]:
    """The mixers of all layers, which must be of this kind."""
    blocks = spec.blocks if isinstance(spec, LanguageModel) else ()
    if not blocks:
        raise InputError(f"{spec.kind} is not a stack of blocks")
    return [the(block.mixer, kind, f"blocks.{index}.mixer") for index, block in enumerate(blocks)]


def the(part: Any, kind: type[AnySpec], path: str) -> AnySpec:
    """A part, which must be of this kind."""
    if not isinstance(part, kind):
        found = part.kind if isinstance(part, Spec) else part
        raise InputError(f"{path} is {found}, not {kind.__name__}")
    return part


def head_width_of(mixer: Any, width: int) -> int:
    """Of an `Attention` in a model of this width."""
    return int(mixer.head_width or width // mixer.heads)


def turned(rope: Rope | None, layout: str, heads: int, head_width: int, others: int = 0) -> tuple[Operation, ...]:
    """What brings rows of queries or keys from their layout of rotated pairs to the spec's.

    others: rows after those of the heads, which stay.
    """
    if rope is None or rope.layout == layout:
        return ()
    rotated = rope.width or head_width
    pairs = [index for first in (0, 1) for index in range(first, rotated, 2)]  # neighbours, as two halves
    if layout == "half":
        pairs = [pairs.index(index) for index in range(rotated)]
    within = [*pairs, *range(rotated, head_width)]
    rows = [head * head_width + index for head in range(heads) for index in within]
    return (Rows((*rows, *range(len(rows), len(rows) + others))),)


def every(spec: LanguageModel, steps: Callable[[int], Iterable[Weight]]) -> list[Weight]:
    """The steps of all layers, from the bottom."""
    return [step for layer in range(len(spec.blocks)) for step in steps(layer)]


def rope_of(mixer: Mixer) -> Rope:
    """The rotary positions of an `Attention`, which must have some."""
    return the(the(mixer, Attention, "mixer").rope, Rope, "mixer.rope")
