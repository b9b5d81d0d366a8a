"""Efficient attention as a language model (Shen et al. 2018, arXiv 1812.01243): linear in the length, causal."""

from itertools import cycle, islice
from typing import Literal

from windtunnel.init import Normal
from windtunnel.mixers import Attention, LinearAttention, Mixer
from windtunnel.mixers.linear import Features
from windtunnel.mlps import Dense
from windtunnel.model import Block, Embedding, Head, LanguageModel
from windtunnel.norms import LayerNorm
from windtunnel.positions import Learned
from windtunnel.recipes.sizing import Sizes, Training, heads_for, recipe
from windtunnel.residuals import PreNorm

TRAINING = Training(learning_rate=3e-3)

# The paper is about images; its form as a language model has no published size.
SIZES: Sizes = {"tiny": {"vocab": 1024, "layers": 6, "width": 192, "heads": 6, "context": 512}}


@recipe(SIZES)
def efficient_attention(
    *,
    vocab: int,
    layers: int,
    width: int,
    context: int,
    heads: int | None = None,
    hidden: int | None = None,
    normalisation: Literal["softmax", "kernel", "scaling"] = "softmax",
    features: Features = "exp",
    positions: bool = True,
    hybrid: bool = False,
    window: int | None = None,
) -> LanguageModel:
    """GPT-3's block with linear attention: LayerNorm, GELU, biases, tied embeddings; the same count of parameters.

    normalisation, features: see `LinearAttention`. positions: learned ones; without them order is known from the sums
    alone. hybrid: softmax attention and linear attention in turn, softmax first. window: refused by the mixer.
    """
    heads = heads or heads_for(width)
    linear = LinearAttention(heads=heads, normalisation=normalisation, features=features, bias=True, window=window)
    mixers: list[Mixer] = [Attention(heads=heads, bias=True), linear] if hybrid else [linear]
    norm = LayerNorm()
    blocks = [
        Block(residual=PreNorm(norm=norm), mixer=mixer, mlp=Dense(hidden=hidden or 4 * width))
        for mixer in islice(cycle(mixers), layers)
    ]
    return LanguageModel(
        vocab=vocab,
        width=width,
        context=context,
        embedding=Embedding(positions=Learned(length=context) if positions else None),
        blocks=tuple(blocks),
        norm=norm,
        head=Head(tied=True),
        initial=Normal(std=0.02, scale_writes=True),
    )
