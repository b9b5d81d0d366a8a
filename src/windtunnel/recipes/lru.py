"""The linear recurrent unit as a language model (Orvieto et al. 2023, arXiv 2303.06349)."""

import math

from windtunnel.init import FanIn
from windtunnel.mixers import LRU
from windtunnel.model import Block, Head, LanguageModel
from windtunnel.norms import LayerNorm
from windtunnel.recipes.sizing import Sizes, Training, recipe
from windtunnel.residuals import PreNorm

TRAINING = Training(learning_rate=1.2e-2)

# The paper trains on long-range benchmarks, not on text; this is its deep LRU for byte-level classification with a
# language model's tables around it.
SIZES: Sizes = {"text": {"layers": 6, "width": 256, "hidden": 192, "vocab": 256, "context": 4096}}


@recipe(SIZES)
def lru(
    *,
    vocab: int,
    layers: int,
    width: int,
    context: int,
    hidden: int | None = None,
    r_min: float = 0.0,
    r_max: float = 0.99,
    phase_max: float = 2 * math.pi,
) -> LanguageModel:
    """Complex diagonal recurrences that do not depend on the input, GELU and a gated linear unit behind one norm.

    hidden: complex numbers in the state; None is the width. r_min, r_max, phase_max: where the eigenvalues start. The
    paper's batch norm would see other tokens than those before; layer norm takes its place.
    """
    norm = LayerNorm()
    mixer = LRU(hidden=hidden or width, r_min=r_min, r_max=r_max, phase_max=phase_max)
    return LanguageModel(
        vocab=vocab,
        width=width,
        context=context,
        blocks=(Block(residual=PreNorm(norm=norm), mixer=mixer),) * layers,
        norm=norm,
        head=Head(),
        initial=FanIn(embedding=1.0),
    )
