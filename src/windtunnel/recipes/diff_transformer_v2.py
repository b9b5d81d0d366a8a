"""Differential Transformer, second version (Microsoft's "DIFF V2" blog post, 20 January 2026)."""

from windtunnel.init import FanIn
from windtunnel.mixers import DiffAttentionV2
from windtunnel.mlps import Gated
from windtunnel.model import Block, Head, LanguageModel
from windtunnel.norms import RMSNorm
from windtunnel.positions import Rope
from windtunnel.recipes.sizing import Sizes, Training, gated_hidden, heads_for, recipe
from windtunnel.residuals import PreNorm

TRAINING = Training(learning_rate=1.2e-2)

# The post names a dense model and a 30B-A3B mixture of experts, and the layers of neither.
SIZES: Sizes = {}


@recipe(SIZES)
def diff_transformer_v2(
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
) -> LanguageModel:
    """The baseline with twice its query heads, subtracted in pairs by a gate of each token and head.

    heads: pairs, which is the baseline's number of heads; keys, values and the output matrix are the baseline's.
    """
    norm = RMSNorm()
    block = Block(
        residual=PreNorm(norm=norm),
        mixer=DiffAttentionV2(
            heads=heads or heads_for(width), kv_heads=kv_heads, head_width=head_width, rope=Rope(theta=theta)
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
