"""The sparsely-gated mixture of experts (Shazeer et al. 2017, arXiv 1701.06538)."""

from windtunnel.mlps import Experts, NoisyTopK
from windtunnel.model import LanguageModel
from windtunnel.recipes.llama import llama
from windtunnel.recipes.sizing import Sizes, Training, recipe

TRAINING = Training(learning_rate=1.2e-2)

# No published size is a decoder alone: the paper's layer stands between LSTMs.
SIZES: Sizes = {"tiny": {"layers": 4, "width": 128, "heads": 4, "vocab": 1024, "context": 512, "hidden": 128}}


@recipe(SIZES)
def sparsely_gated_moe(
    *,
    vocab: int,
    layers: int,
    width: int,
    context: int,
    heads: int | None = None,
    hidden: int | None = None,
    experts: int = 16,
    choices: int = 4,
    importance: float = 0.1,
    load: float = 0.1,
) -> LanguageModel:
    """The baseline with noisy top-k gating of ReLU experts in place of every MLP.

    hidden: of one expert; 4 x width divided by the choices unless given. importance, load: coefficients of the losses.
    The paper's own model has one such layer between two LSTMs, and a sigmoid behind it that belongs to those.
    """
    base = llama(vocab=vocab, layers=layers, width=width, context=context, heads=heads)
    mlp = Experts(
        experts=experts,
        hidden=hidden or max(1, 4 * width // choices),
        router=NoisyTopK(choices=choices, importance=importance, load=load),
        activation="relu",
        gated=False,
    )
    return base.replace(blocks=tuple(block.replace(mlp=mlp) for block in base.blocks))
