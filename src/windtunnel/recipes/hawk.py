"""Hawk (De et al. 2024, arXiv 2402.19427): Griffin without attention."""

from windtunnel.errors import InputError
from windtunnel.model import LanguageModel
from windtunnel.recipes.griffin import PUBLISHED, Memory, recurrent, skeleton
from windtunnel.recipes.sizing import Sizes, Training, recipe

TRAINING = Training(learning_rate=6e-3)

SIZES: Sizes = {size: {**given, "heads": 16} for size, given in PUBLISHED.items()}


@recipe(SIZES)
def hawk(
    *,
    vocab: int,
    layers: int,
    width: int,
    context: int,
    heads: int | None = None,
    hidden: int | None = None,
    recurrent_width: int | None = None,
    memory: Memory = "code",
) -> LanguageModel:
    """A recurrent block in every layer.

    heads: blocks of the gates, which the released code ties to the number of heads; None is the paper's 16. memory: how
    the decays start, see `RGLRU`.
    """
    if heads is not None and width % heads:
        raise InputError(f"heads: {heads} does not divide the width {width}")
    mixer = recurrent(width, recurrent_width, heads or 16, memory)
    return skeleton(vocab, width, context, (mixer,) * layers, hidden)
