"""Top-k attention (Gupta et al. 2021, arXiv 2106.06899), otherwise the baseline."""

from windtunnel.init import FanIn
from windtunnel.mixers import TopKAttention
from windtunnel.mlps import Gated
from windtunnel.model import Block, Head, LanguageModel
from windtunnel.norms import RMSNorm
from windtunnel.positions import Rope
from windtunnel.recipes.sizing import Sizes, Training, gated_hidden, heads_for, recipe
from windtunnel.residuals import PreNorm

TRAINING = Training(learning_rate=1.2e-2)

SIZES: Sizes = {}  # the paper changes models of others


@recipe(SIZES)
def topk_attention(
    *,
    vocab: int,
    layers: int,
    width: int,
    context: int,
    heads: int | None = None,
    kv_heads: int | None = None,
    hidden: int | None = None,
    top: int | None = None,
    tied: bool = False,
) -> LanguageModel:
    """Every query attends to the `top` keys that score highest, chosen anew in each layer and head.

    top: None is a 16th of the context; 64 is what the paper finds enough in contexts of a few thousand.
    """
    norm = RMSNorm(eps=1e-6)
    block = Block(
        residual=PreNorm(norm=norm),
        mixer=TopKAttention(
            heads=heads or heads_for(width), kv_heads=kv_heads, rope=Rope(), top=top or max(1, context // 16)
        ),
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
