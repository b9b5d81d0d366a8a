"""Mamba (Gu and Dao 2023, arXiv 2312.00752)."""

from windtunnel.init import FanInUniform
from windtunnel.mixers import Mamba
from windtunnel.model import Block, Head, LanguageModel
from windtunnel.norms import RMSNorm
from windtunnel.recipes.sizing import Settings, Sizes, Training, recipe
from windtunnel.residuals import PreNorm

TRAINING = Training(learning_rate=1.2e-2)

_COMMON: Settings = {"vocab": 50_280, "context": 2048}  # GPT-NeoX's vocabulary of 50,277, padded to a multiple of 8
SIZES: Sizes = {
    "130m": {"layers": 24, "width": 768, **_COMMON},
    "370m": {"layers": 48, "width": 1024, **_COMMON},
    "790m": {"layers": 48, "width": 1536, **_COMMON},
    "1.4b": {"layers": 48, "width": 2048, **_COMMON},
    "2.8b": {"layers": 64, "width": 2560, **_COMMON},
}


@recipe(SIZES)
def mamba(
    *,
    vocab: int,
    layers: int,
    width: int,
    context: int,
    hidden: int | None = None,
    state: int = 16,
    taps: int = 4,
) -> LanguageModel:
    """Selective state spaces in every block, no attention, no MLP, no positions, tied embeddings.

    hidden: channels of the state-space model; None is 2 x width. state: numbers a channel. taps: of its convolution.
    """
    norm = RMSNorm(eps=1e-5)
    block = Block(residual=PreNorm(norm=norm), mixer=Mamba(hidden=hidden or 2 * width, state=state, taps=taps))
    return LanguageModel(
        vocab=vocab,
        width=width,
        context=context,
        blocks=(block,) * layers,
        norm=norm,
        head=Head(tied=True),
        initial=FanInUniform(embedding=0.02),
    )
