"""Maximal update parametrisation (muP): what is tuned at one width holds at all (Yang et al. 2022, arXiv 2203.03466).

Table 8 of the paper, relative to a `base` width at which nothing changes; r = width / base:

    parameters                           deviation   factor of the output   rate, Adam   rate, SGD
    tables of tokens, gains, biases      as at base            1                 1            r
    unembedding (may be tied)            as at base           1/r                1            r
    matrices inside                   base / sqrt(r)           1                1/r           1

and softmax scores are divided by the head's width in place of its root. Gradients fall with 1/r, and so does Adam's eps
here. Decoupled decay keeps rate x decay at every width, as the authors' optimisers do.
"""

from typing import Any, Literal

import torch
from torch import Tensor, nn

from windtunnel.embedding import Embedding, Head
from windtunnel.errors import InputError
from windtunnel.init import Initial
from windtunnel.layer import Role
from windtunnel.mixers import Attention, DiffAttention, DiffAttentionV2
from windtunnel.model import LanguageModel
from windtunnel.root import Model
from windtunnel.spec import Spec, fields

Family = Literal["adam", "sgd"]
_MATRICES = frozenset({"reads", "writes", "inner"})
_TABLES = frozenset({"embedding", "unembedding"})
_SUBHEADS = {"DiffAttention": 2}  # queries a head, where its width is shared between several


class MuP(Initial):
    """Initial values of `initial` as they are at the width `base`, carried to `width` by muP; and the rates to go with.

    A model that starts like this is trained with the factors of `rate`.
    """

    initial: Initial
    width: int
    base: int

    def validate(self) -> None:
        for name in ("width", "base"):
            value = getattr(self, name)
            self.require(value > 0, f"{name} must be positive, got {value}")

    @property
    def ratio(self) -> float:
        """How many times the base width."""
        return self.width / self.base

    def deviation(self, role: Role, layers: int) -> float:
        if role.kind in _TABLES:
            return self.initial.deviation(role._replace(fan_in=self._at_base(role.fan_in)), layers)
        if role.kind not in _MATRICES:
            return self.initial.deviation(role, layers)
        narrow = role._replace(fan_in=self._at_base(role.fan_in), fan_out=self._at_base(role.fan_out))
        return float(self.initial.deviation(narrow, layers) * self.ratio**-0.5)

    def draw(self, shape: torch.Size, role: Role, deviation: float, generator: torch.Generator) -> Tensor:
        return self.initial.draw(shape, role, deviation, generator)

    def rate(self, role: Role, family: Family) -> float:
        """The factor of a parameter's learning rate, under Adam or SGD."""
        if family == "adam":
            return 1 / self.ratio if role.kind in _MATRICES else 1.0
        of_logits = role.kind == "bias" and role.mechanism == "unembedding"  # as many at every width
        return 1.0 if role.kind in _MATRICES or of_logits else self.ratio

    def _at_base(self, size: int) -> int:
        return max(1, round(size / self.ratio))


def mup_of(model: nn.Module) -> MuP | None:
    """The parametrisation of a model that is under muP; None for every other."""
    spec = getattr(model, "spec", None)
    return spec.initial if isinstance(spec, Model) and isinstance(spec.initial, MuP) else None


def in_mup(spec: Model, narrow: Model) -> Model:
    """`spec` under muP, where `narrow` is the same architecture at the base width and stays as it is.

    Raises `InputError` where muP says nothing: weights on the unit sphere, wider heads of a mixer whose scores have no
    rule, parts that differ in more than sizes.
    """
    if isinstance(spec.initial, MuP):
        raise InputError(f"mup: the model is under muP already, from a width of {spec.initial.base}")
    if isinstance(spec, LanguageModel) and any(part.residual.normalized for part in spec.blocks):
        raise InputError("mup: weights on the unit sphere have the sizes of their projection; muP has no rule for them")
    if isinstance(spec, LanguageModel) and spec.projected:
        raise InputError("mup: projected weights have the sizes of their projection; muP has no rule for them")
    initial = MuP(initial=spec.initial, width=spec.width, base=narrow.width)
    carried = _carried(spec.replace(initial=initial), narrow.replace(initial=initial), (spec.width, narrow.width), "")
    assert isinstance(carried, Model)
    return carried


def _carried(part: Any, narrow: Any, widths: tuple[int, int], path: str) -> Any:
    """A part with the factors that muP gives it; tuples and specs are walked side by side."""
    if isinstance(part, tuple):
        if not isinstance(narrow, tuple) or len(part) != len(narrow):
            raise InputError(f"mup: {path} is another one at width {widths[1]}; muP carries one architecture to widths")
        pairs = enumerate(zip(part, narrow, strict=True))
        return tuple(_carried(one, other, widths, f"{path}.{index}") for index, (one, other) in pairs)
    if not isinstance(part, Spec):
        return part
    if not isinstance(narrow, Spec) or part.kind != narrow.kind:
        raise InputError(f"mup: {path} is another one at width {widths[1]}; muP carries one architecture to widths")
    at_base = dict(fields(narrow))
    inside = {
        name: _carried(value, at_base[name], widths, f"{path}.{name}".lstrip(".")) for name, value in fields(part)
    }
    return _scaled(part.replace(**inside), narrow, widths, path)


def _scaled(part: Spec, narrow: Any, widths: tuple[int, int], path: str) -> Spec:
    """One part's own factors: of logits, embeddings and scores."""
    if isinstance(part, Head):
        return part.replace(scale=narrow.scale * widths[1] / widths[0])
    if isinstance(part, Embedding):
        return part.replace(scale=narrow.scale)
    if "heads" not in dict(fields(part)):
        return part
    wide, base = _head_width(part, widths[0]), _head_width(narrow, widths[1])
    if wide == base:
        return part
    if not isinstance(part, Attention | DiffAttention | DiffAttentionV2):
        raise InputError(
            f"mup: {path} is {part.kind}, whose heads grow from {base} to {wide} numbers: muP's rule for its scores is "
            "not known here; give heads that keep their width"
        )
    return part.replace(base_head_width=base)


def _head_width(part: Any, width: int) -> int:
    given: int | None = getattr(part, "head_width", None)
    return given or width // (part.heads * _SUBHEADS.get(part.kind, 1))
