"""Llama (Touvron et al. 2023, arXiv 2302.13971): the strong baseline that everything is compared with."""

from windtunnel.init import FanIn
from windtunnel.mixers import Attention, Convolved
from windtunnel.mlps import Gated
from windtunnel.model import Block, Head, LanguageModel
from windtunnel.norms import RMSNorm
from windtunnel.positions import Rope
from windtunnel.recipes.sizing import Settings, Sizes, Training, gated_hidden, heads_for, recipe
from windtunnel.residuals import PreNorm

TRAINING = Training(learning_rate=1.2e-2)

_FIRST: Settings = {"vocab": 32_000, "context": 2048}
_THIRD: Settings = {"vocab": 128_256, "context": 8192, "kv_heads": 8, "theta": 500_000.0, "eps": 1e-5}
SIZES: Sizes = {
    "7b": {"layers": 32, "width": 4096, "heads": 32, "hidden": 11_008, **_FIRST},
    "13b": {"layers": 40, "width": 5120, "heads": 40, "hidden": 13_824, **_FIRST},
    "33b": {"layers": 60, "width": 6656, "heads": 52, "hidden": 17_920, **_FIRST},
    "65b": {"layers": 80, "width": 8192, "heads": 64, "hidden": 22_016, **_FIRST},
    "llama2-70b": {
        "layers": 80,
        "width": 8192,
        "heads": 64,
        "kv_heads": 8,
        "hidden": 28_672,
        "eps": 1e-5,
        "vocab": 32_000,
        "context": 4096,
    },
    "llama3-8b": {"layers": 32, "width": 4096, "heads": 32, "hidden": 14_336, **_THIRD},
    "llama3-70b": {"layers": 80, "width": 8192, "heads": 64, "hidden": 28_672, **_THIRD},
}


@recipe(SIZES)
def llama(
    *,
    vocab: int,
    layers: int,
    width: int,
    context: int,
    heads: int | None = None,
    kv_heads: int | None = None,
    head_width: int | None = None,
    hidden: int | None = None,
    tied: bool = False,
    theta: float = 10_000.0,
    eps: float = 1e-6,
    convolution: int | None = None,
) -> LanguageModel:
    """RMSNorm before attention and SwiGLU, RoPE, no biases; kv_heads below heads is grouped-query attention.

    convolution: taps of a causal convolution in front of attention, the control arm of the recall tasks; None or 0 is
    Llama.
    """
    norm = RMSNorm(eps=eps)
    attention = Attention(
        heads=heads or heads_for(width),
        kv_heads=kv_heads,
        head_width=head_width,
        rope=Rope(theta=theta),
    )
    block = Block(
        residual=PreNorm(norm=norm),
        mixer=Convolved(mixer=attention, taps=convolution) if convolution else attention,
        mlp=Gated(hidden=hidden or gated_hidden(width)),
    )
    return LanguageModel(
        vocab=vocab,
        width=width,
        context=context,
        blocks=(block,) * layers,
        norm=norm,
        head=Head(tied=tied),
        initial=FanIn(embedding=1.0, scale_writes=True),
    )
