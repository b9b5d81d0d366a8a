"""`RecurrentGemmaForCausalLM` of transformers: Griffin, or Hawk where all its blocks are recurrent."""

from typing import Any

from torch import Tensor

from windtunnel.mixers import Attention, Recurrent
from windtunnel.mlps import Gated

_WHOLE = {"embedding.weight": "model.embed_tokens.weight", "norm.weight": "model.final_norm.weight"}
_PARTS = {
    "residual.mixer_norm": "temporal_pre_norm",
    "residual.mlp_norm": "channel_pre_norm",
    "mixer.recurrence.decay_gate.": "temporal_block.rg_lru.recurrent_gate_",
    "mixer.recurrence.input_gate.": "temporal_block.rg_lru.input_gate_",
    "mixer.recurrence.decay": "temporal_block.rg_lru.recurrent_param",
    "mixer.conv": "temporal_block.conv_1d",
    "mixer.x": "temporal_block.linear_x",
    "mixer.y": "temporal_block.linear_y",
    "mixer.o": "temporal_block.linear_out",
    **{f"mlp.{name}": f"mlp_block.{name}_proj" for name in ("gate", "up", "down")},
}
_ATTENTION = {f"mixer.{name}.": f"temporal_block.{name}_proj." for name in "qkvo"}


def load(ours: Any) -> Any:
    """The model with Windtunnel's weights."""
    from transformers import RecurrentGemmaConfig, RecurrentGemmaForCausalLM

    mixers, mlp = [block.mixer for block in ours.spec.blocks], ours.spec.blocks[0].mlp
    mixer = next(each for each in mixers if isinstance(each, Recurrent))
    attention = next((each for each in mixers if isinstance(each, Attention)), None)
    assert isinstance(mlp, Gated)
    assert attention is None or attention.heads == mixer.recurrence.blocks  # theirs has one number for both
    blocks = mixer.recurrence.blocks
    config = RecurrentGemmaConfig(
        vocab_size=ours.spec.vocab,
        hidden_size=ours.spec.width,
        intermediate_size=2 * mlp.hidden,
        num_hidden_layers=len(ours.spec.blocks),
        num_attention_heads=blocks,
        num_key_value_heads=1,
        lru_width=mixer.recurrent_width,
        attention_window_size=(attention.window if attention is not None else None) or 2048,
        block_types=["attention" if isinstance(each, Attention) else "recurrent" for each in mixers],
        pad_token_id=None,
        use_cache=False,
    )
    model = RecurrentGemmaForCausalLM(config)
    weights = {_name(name, mixers): _shaped(name, value.detach(), blocks) for name, value in ours.named_parameters()}
    missing, unknown = model.load_state_dict(weights, strict=False)
    assert not unknown
    assert set(missing) <= {"lm_head.weight"}
    return model


def _name(ours: str, mixers: list[Any]) -> str:
    if ours in _WHOLE:
        return _WHOLE[ours]
    _, index, part = ours.split(".", 2)
    parts = {**_ATTENTION, **_PARTS} if isinstance(mixers[int(index)], Attention) else _PARTS
    start = next(start for start in parts if part.startswith(start))
    return f"model.layers.{index}.{parts[start]}{part.removeprefix(start)}"


def _shaped(name: str, value: Tensor, blocks: int) -> Tensor:
    if "norm" in name:
        return value - 1  # theirs multiplies by 1 + weight
    if name.endswith("conv.weight"):
        return value[:, None]
    return value.view(blocks, -1) if name.endswith("gate.bias") and "recurrence" in name else value
