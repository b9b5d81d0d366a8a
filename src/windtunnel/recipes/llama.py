"""Llama (Touvron et al. 2023, arXiv 2302.13971): the strong baseline that everything is compared with."""

from windtunnel.init import FanIn
from windtunnel.mixers import Attention
from windtunnel.mlps import Gated
from windtunnel.model import Block, Head, LanguageModel
from windtunnel.norms import RMSNorm
from windtunnel.positions import Rope
from windtunnel.recipes.sizing import Settings, Sizes, Training, choose, gated_hidden, heads_for
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


def llama(
    *,
    size: str | None = None,
    vocab: int | None = None,
    layers: int | None = None,
    width: int | None = None,
    context: int | None = None,
    heads: int | None = None,
    kv_heads: int | None = None,
    head_width: int | None = None,
    hidden: int | None = None,
    tied: bool = False,
    theta: float | None = None,
    eps: float | None = None,
) -> LanguageModel:
    """RMSNorm before attention and SwiGLU, RoPE, no biases; kv_heads below heads is grouped-query attention."""
    p = choose(
        SIZES,
        size,
        vocab=vocab,
        layers=layers,
        width=width,
        context=context,
        heads=heads,
        kv_heads=kv_heads,
        head_width=head_width,
        hidden=hidden,
        theta=theta,
        eps=eps,
    )
    norm = RMSNorm(eps=p.eps or 1e-6)
    block = Block(
        residual=PreNorm(norm=norm),
        mixer=Attention(
            heads=p.heads or heads_for(p.width),
            kv_heads=p.kv_heads,
            head_width=p.head_width,
            rope=Rope(theta=p.theta or 10_000.0),
        ),
        mlp=Gated(hidden=p.hidden or gated_hidden(p.width)),
    )
    return LanguageModel(
        vocab=p.vocab,
        width=p.width,
        context=p.context,
        blocks=(block,) * p.layers,
        norm=norm,
        head=Head(tied=tied),
        initial=FanIn(embedding=1.0, scale_writes=True),
    )
