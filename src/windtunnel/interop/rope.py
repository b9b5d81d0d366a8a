"""Rotary positions as `config.json` spells them: `rope_theta` and `rope_scaling`, or the newer `rope_parameters`."""

import math
from typing import Any

from windtunnel.interop.config import Config
from windtunnel.positions import DynamicNTK, Interpolation, Llama3, Rope, YaRN
from windtunnel.positions.scaling import Scaling

_KNOWN = {
    "default": set(),
    "linear": {"factor"},
    "dynamic": {"factor"},
    "llama3": {"factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"},
    "yarn": {
        "factor",
        "original_max_position_embeddings",
        "beta_fast",
        "beta_slow",
        "attention_factor",
        "truncate",
    },
}
_COMMON = {"rope_type", "type", "rope_theta", "partial_rotary_factor"}


def read_rope(
    config: Config, head_width: int, context: int, theta: float = 10_000.0, share: float | None = None, **fields: Any
) -> Rope:
    """The rotary positions of a model whose heads are `head_width` wide; theta and share are the family's defaults.

    share: of a head that is rotated; None where transformers rotates all of it whatever is said.

    The dynamic method depends on the length of the text; ours is its value up to the trained context, where both are
    the same function.
    """
    older = config.any("rope_scaling") or {}
    given = {**older, **(config.any("rope_parameters") or {})}
    if not isinstance(given, dict) or any(isinstance(value, dict) for value in given.values()):
        raise config.refusal("rope_parameters", "differ from layer to layer, which is not carried")
    kind = given.get("rope_type", given.get("type", "default"))
    if kind not in _KNOWN:
        raise config.refusal("rope_scaling", f"of type {kind!r} is not carried; known: {', '.join(_KNOWN)}")
    odd = sorted(name for name in given.keys() - _COMMON - _KNOWN[kind] if given[name] is not None)
    if odd:
        raise config.refusal("rope_scaling", f"of type {kind!r} has {odd[0]} = {given[odd[0]]!r}, not understood")
    theta = given.get("rope_theta") or config.number("rope_theta", theta)
    part = given.get("partial_rotary_factor") or config.number("partial_rotary_factor", share or 1.0)
    if share is None and part != 1.0:
        raise config.refusal("partial_rotary_factor", f"is {part}; its class in transformers rotates whole heads")
    width = int(head_width * part)
    config.any("original_max_position_embeddings")
    trained = given.get("original_max_position_embeddings") or context
    return Rope(
        theta=theta,
        width=None if width == head_width else width,
        scaling=_scaling(kind, given, trained, context),
        **fields,
    )


def _scaling(kind: str, given: dict[str, Any], trained: int, context: int) -> Scaling | None:
    factor = given.get("factor", 1.0)
    if kind == "linear":
        return Interpolation(factor=factor)
    if kind == "dynamic":
        return DynamicNTK(factor=factor, trained=context, length=context)
    if kind == "llama3":
        low, high = given["low_freq_factor"], given["high_freq_factor"]
        return Llama3(factor=factor, trained=trained, low=low, high=high)
    if kind == "yarn":
        return YaRN(
            factor=factor,
            trained=trained,
            fast=given.get("beta_fast") or 32.0,
            slow=given.get("beta_slow") or 1.0,
            attention=given.get("attention_factor"),
            truncate=given.get("truncate", True),
        )
    return None


def write_rope(rope: Rope, head_width: int, context: int) -> dict[str, Any]:
    """The attributes of rotary positions; what they cannot say is found out when the configuration is read back.

    In the older spelling, which every version of transformers understands.
    """
    written: dict[str, Any] = {"rope_theta": rope.theta, "rope_scaling": _written(rope.scaling)}
    if rope.width not in (None, head_width):
        share = rope.width / head_width
        written["partial_rotary_factor"] = share if int(head_width * share) == rope.width else math.nextafter(share, 1)
    return written


def _written(scaling: Scaling | None) -> dict[str, Any] | None:
    match scaling:
        case Interpolation(factor=factor):
            return {"rope_type": "linear", "factor": factor}
        case DynamicNTK(factor=factor):
            return {"rope_type": "dynamic", "factor": factor}
        case Llama3():
            return {
                "rope_type": "llama3",
                "factor": scaling.factor,
                "low_freq_factor": scaling.low,
                "high_freq_factor": scaling.high,
                "original_max_position_embeddings": scaling.trained,
            }
        case YaRN():
            written = {
                "rope_type": "yarn",
                "factor": scaling.factor,
                "original_max_position_embeddings": scaling.trained,
                "beta_fast": scaling.fast,
                "beta_slow": scaling.slow,
                "truncate": scaling.truncate,
            }
            return written if scaling.attention is None else {**written, "attention_factor": scaling.attention}
    return None
