"""Whether two specs are one function of weights that steps can bring from one to the other."""

import math
from typing import Any

from windtunnel.init import Normal
from windtunnel.interop.family import head_width_of
from windtunnel.mixers import RGLRU, Attention, DiffAttention, Mamba
from windtunnel.mixers.attention import score_scale
from windtunnel.mlps import TopK
from windtunnel.model import LanguageModel
from windtunnel.positions import Learned, Rope
from windtunnel.root import Model
from windtunnel.spec import Spec, difference, fields


def differences(ours: Model, theirs: Model) -> list[tuple[str, Any, Any]]:
    """Where two models differ: (path, ours, theirs). What only training or initial values depend on is left out.

    So is the layout of rotated pairs, which is an order of rows.
    """
    return difference(_normal(ours, ours.width), _normal(theirs, theirs.width))


def _normal(value: Any, width: int) -> Any:
    """The value with defaults that depend on other values written out."""
    if isinstance(value, tuple):
        return tuple(_normal(item, width) for item in value)
    if not isinstance(value, Spec):
        return value
    if isinstance(value, Attention | DiffAttention):
        value = _written_out(value, width)
    elif isinstance(value, LanguageModel):
        value = value.replace(initial=Normal(), projected=None)
    elif isinstance(value, Mamba):
        value = value.replace(rank=value.rank or math.ceil(width / 16))
    elif isinstance(value, TopK):
        value = value.replace(balance=0.0, z_loss=0.0)
    elif isinstance(value, RGLRU):
        value = value.replace(memory="code")
    elif isinstance(value, Learned):
        value = value.replace(deviation=0.02)
    return value.replace(**{name: _normal(item, width) for name, item in fields(value)})


def _written_out(mixer: Attention | DiffAttention, width: int) -> Spec:
    apart = 2 if isinstance(mixer, DiffAttention) else 1
    head = mixer.head_width or width // (apart * mixer.heads)
    changes: dict[str, Any] = {"kv_heads": mixer.kv_heads or mixer.heads, "head_width": head}
    if isinstance(mixer.rope, Rope):
        changes["rope"] = mixer.rope.replace(width=mixer.rope.width or head, layout="half")
    if isinstance(mixer, Attention):
        changes["head_width"] = head_width_of(mixer, width)
        changes["scale"] = score_scale(head, mixer.scale, mixer.base_head_width)
        changes["base_head_width"] = None
        changes["output_bias"] = mixer.bias if mixer.output_bias is None else mixer.output_bias
    return mixer.replace(**changes)
