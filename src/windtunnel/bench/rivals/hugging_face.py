"""`LlamaForCausalLM` of transformers, with its defaults (SDPA attention)."""

from typing import Any

from torch import Tensor

from windtunnel.bench.shape import Shape

_NAMES = {
    "embedding.weight": "model.embed_tokens.weight",
    "norm.weight": "model.norm.weight",
    "head.weight": "lm_head.weight",
}
_PARTS = {
    "mixer_norm.weight": "input_layernorm.weight",
    "mlp_norm.weight": "post_attention_layernorm.weight",
    **{f"mixer.{name}.weight": f"self_attn.{name}_proj.weight" for name in "qkvo"},
    **{f"mlp.{name}.weight": f"mlp.{name}_proj.weight" for name in ("gate", "up", "down")},
}


def load(shape: Shape, weights: dict[str, Tensor]) -> Any:
    """The model with Windtunnel's weights."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=shape.vocab,
        hidden_size=shape.width,
        intermediate_size=shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.heads,
        max_position_embeddings=shape.context,
        rms_norm_eps=1e-6,
        tie_word_embeddings=False,
        use_cache=False,
    )
    model = LlamaForCausalLM(config)
    model.load_state_dict({_name(name): value for name, value in weights.items()})
    return model


def _name(ours: str) -> str:
    if ours in _NAMES:
        return _NAMES[ours]
    _, index, part = ours.split(".", 2)
    return f"model.layers.{index}.{_PARTS[part.removeprefix('residual.')]}"
