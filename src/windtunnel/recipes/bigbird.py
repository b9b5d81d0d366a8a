"""BigBird's static pattern in causal order (Zaheer et al. 2020, arXiv 2007.14062), otherwise the baseline."""

from windtunnel.init import FanIn
from windtunnel.mixers import BigBird, SparseAttention
from windtunnel.mlps import Gated
from windtunnel.model import Block, Head, LanguageModel
from windtunnel.norms import RMSNorm
from windtunnel.positions import Rope
from windtunnel.recipes.sizing import Sizes, Training, gated_hidden, heads_for, recipe
from windtunnel.residuals import PreNorm

TRAINING = Training(learning_rate=1.2e-2)

SIZES: Sizes = {}  # the paper's models are encoders


@recipe(SIZES)
def bigbird(
    *,
    vocab: int,
    layers: int,
    width: int,
    context: int,
    heads: int | None = None,
    kv_heads: int | None = None,
    hidden: int | None = None,
    block: int | None = None,
    first: int = 2,
    window: int = 3,
    chosen: int = 3,
    tied: bool = False,
) -> LanguageModel:
    """Every query block sees the `first` blocks, a window of blocks, and `chosen` random ones, drawn anew by layer.

    block: None is a 32nd of the context, 64 at most. first, window and chosen count blocks; see `BigBird`.
    """
    size = block or min(64, max(1, context // 32))

    def mixer(layer: int) -> SparseAttention:
        pattern = BigBird(block=size, first=first, window=window, chosen=chosen, seed=layer)
        return SparseAttention(heads=heads or heads_for(width), kv_heads=kv_heads, patterns=(pattern,), rope=Rope())

    norm = RMSNorm(eps=1e-6)
    mlp = Gated(hidden=hidden or gated_hidden(width))
    return LanguageModel(
        vocab=vocab,
        width=width,
        context=context,
        blocks=tuple(Block(residual=PreNorm(norm=norm), mixer=mixer(i), mlp=mlp) for i in range(layers)),
        norm=norm,
        head=Head(tied=tied),
        initial=FanIn(embedding=1.0, scale_writes=True),
    )
