"""Longformer's language model (Beltagy et al. 2020, arXiv 2004.05150, sections 3 and 4, table 12)."""

from windtunnel.init import Normal
from windtunnel.mixers import Sliding, SparseAttention
from windtunnel.mlps import Dense
from windtunnel.model import Block, Head, LanguageModel
from windtunnel.norms import LayerNorm
from windtunnel.positions import Rope
from windtunnel.recipes.sizing import Settings, Sizes, Training, heads_for, recipe
from windtunnel.residuals import PreNorm

TRAINING = Training(learning_rate=3e-3)

# Characters; the windows of the first of five phases. The table's row of windows is mis-set: a window of 8,192 cannot
# be in a sequence of 2,048. 32 to 512, doubled four times, is what its text and its ablation say. The paper's 41M and
# 102M count one position matrix of width² in every layer, for Transformer-XL's relative positions.
_COMMON: Settings = {"vocab": 256, "width": 512, "heads": 8, "context": 2048, "window": 512, "lowest": 32}
SIZES: Sizes = {"41m": {"layers": 12, **_COMMON}, "102m": {"layers": 30, **_COMMON}}


@recipe(SIZES)
def longformer(
    *,
    vocab: int,
    layers: int,
    width: int,
    context: int,
    heads: int | None = None,
    hidden: int | None = None,
    window: int | None = None,
    lowest: int | None = None,
    dilated_heads: int = 2,
    prefix: int = 0,
) -> LanguageModel:
    """Sliding windows that grow with the depth, two dilated heads in the upper layers; LayerNorm, GELU, biases.

    window: of the top layer, None is a quarter of the context. lowest: of the bottom layer, None is a 64th. Between
    them windows grow evenly; the paper gives the ends alone. dilated_heads: how many heads leave keys out above the
    middle. prefix: global tokens at the start of each document, with projections of their own from two on; the paper's
    language models have none. Positions are rotary, where the paper takes Transformer-XL's relative ones.
    """
    heads = heads or heads_for(width)
    top, bottom = window or max(2, context // 4), lowest or max(2, context // 64)

    def mixer(layer: int) -> SparseAttention:
        keys = round(bottom + (top - bottom) * layer / max(1, layers - 1))
        plain = Sliding(window=keys, prefix=prefix)
        dilated = Sliding(window=keys, dilation=dilation(layer, layers) if keys > 1 else 1, prefix=prefix)
        few = min(dilated_heads, heads)
        patterns = (plain,) * (heads - few) + (dilated,) * few
        alike = len(set(patterns)) == 1
        return SparseAttention(
            heads=heads, patterns=patterns[:1] if alike else patterns, rope=Rope(), bias=True, own_prefix=prefix > 1
        )

    norm = LayerNorm()
    mlp = Dense(hidden=hidden or 4 * width)
    return LanguageModel(
        vocab=vocab,
        width=width,
        context=context,
        blocks=tuple(Block(residual=PreNorm(norm=norm), mixer=mixer(i), mlp=mlp) for i in range(layers)),
        norm=norm,
        head=Head(tied=True),
        initial=Normal(std=0.02, scale_writes=True),
    )


def dilation(layer: int, layers: int) -> int:
    """Distance between the keys of a dilated head: 1 in the lower half, then 2, 3 and 4 in a third of the rest each.

    The paper's table counts gaps (0, 1, 2, 3), its code distances.
    """
    half = layers // 2
    return 1 if layer < half else 2 + (layer - half) * 3 // (layers - half)
