"""MPT (MosaicML 2023): a GPT without positions in the stream, whose scores have linear biases instead (ALiBi)."""

from windtunnel.init import Kaiming
from windtunnel.mixers import Attention
from windtunnel.mlps import Dense
from windtunnel.model import Block, Head, LanguageModel
from windtunnel.norms import LayerNorm
from windtunnel.positions import Alibi
from windtunnel.recipes.sizing import Sizes, Training, heads_for, recipe
from windtunnel.residuals import PreNorm

TRAINING = Training(learning_rate=6e-3)

SIZES: Sizes = {
    "7b": {"layers": 32, "width": 4096, "heads": 32, "vocab": 50_432, "context": 2048},
    "30b": {"layers": 48, "width": 7168, "heads": 64, "vocab": 50_432, "context": 8192},
}


@recipe(SIZES)
def mpt_alibi(
    *,
    vocab: int,
    layers: int,
    width: int,
    context: int,
    heads: int | None = None,
    kv_heads: int | None = None,
    hidden: int | None = None,
    window: int | None = None,
    alibi: bool = True,
) -> LanguageModel:
    """LayerNorm without bias, GELU, no biases anywhere, tied embeddings; any number of heads has its slopes.

    alibi=False leaves the model without any positions (NoPE). window: keys that a query sees, its own included.
    """
    norm = LayerNorm(bias=False)
    block = Block(
        residual=PreNorm(norm=norm),
        mixer=Attention(
            heads=heads or heads_for(width), kv_heads=kv_heads, window=window, alibi=Alibi() if alibi else None
        ),
        mlp=Dense(hidden=hidden or 4 * width, activation="gelu", bias=False),
    )
    return LanguageModel(
        vocab=vocab,
        width=width,
        context=context,
        blocks=(block,) * layers,
        norm=norm,
        head=Head(tied=True),
        initial=Kaiming(),
    )
