"""The multi-query transformer that Griffin is compared with (De et al. 2024, arXiv 2402.19427, section 3)."""

from windtunnel.model import LanguageModel
from windtunnel.recipes.griffin import PUBLISHED, multi_query, skeleton
from windtunnel.recipes.sizing import Sizes, Training, recipe

TRAINING = Training(learning_rate=1.2e-2)

SIZES: Sizes = {
    size: {name: value for name, value in given.items() if name != "recurrent_width"}
    for size, given in PUBLISHED.items()
    if size != "14b"
}


@recipe(SIZES)
def mqa_transformer(
    *,
    vocab: int,
    layers: int,
    width: int,
    context: int,
    heads: int | None = None,
    hidden: int | None = None,
) -> LanguageModel:
    """Multi-query attention over everything before, in every layer; the rest as in Griffin."""
    return skeleton(vocab, width, context, (multi_query(width, heads, window=None),) * layers, hidden)
