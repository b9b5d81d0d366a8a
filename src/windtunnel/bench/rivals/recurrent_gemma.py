"""`RecurrentGemmaForCausalLM` of transformers with recurrent blocks alone, which is Hawk."""

from typing import Any

from torch import Tensor

from windtunnel.mixers import Recurrent
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


def load(ours: Any) -> Any:
    """The model with Windtunnel's weights."""
    from transformers import RecurrentGemmaConfig, RecurrentGemmaForCausalLM

    mixer, mlp = ours.spec.blocks[0].mixer, ours.spec.blocks[0].mlp
    assert isinstance(mixer, Recurrent)
    assert isinstance(mlp, Gated)
    blocks = mixer.recurrence.blocks
    config = RecurrentGemmaConfig(
        vocab_size=ours.spec.vocab,
        hidden_size=ours.spec.width,
        intermediate_size=2 * mlp.hidden,
        num_hidden_layers=len(ours.spec.blocks),
        num_attention_heads=blocks,
        num_key_value_heads=1,
        lru_width=mixer.recurrent_width,
        block_types=["recurrent"],
        pad_token_id=None,
        use_cache=False,
    )
    model = RecurrentGemmaForCausalLM(config)
    weights = {_name(name): _shaped(name, value.detach(), blocks) for name, value in ours.named_parameters()}
    missing, unknown = model.load_state_dict(weights, strict=False)
    assert not unknown
    assert set(missing) <= {"lm_head.weight"}
    return model


def _name(ours: str) -> str:
    if ours in _WHOLE:
        return _WHOLE[ours]
    _, index, part = ours.split(".", 2)
    start = next(start for start in _PARTS if part.startswith(start))
    return f"model.layers.{index}.{_PARTS[start]}{part.removeprefix(start)}"


def _shaped(name: str, value: Tensor, blocks: int) -> Tensor:
    if "norm" in name:
        return value - 1  # theirs multiplies by 1 + weight
    if name.endswith("conv.weight"):
        return value[:, None]
    return value.view(blocks, -1) if name.endswith("gate.bias") and "recurrence" in name else value
