"""Switch Transformer (Fedus et al. 2021, arXiv 2101.03961)."""

from windtunnel.init import ReducedFanIn
from windtunnel.mlps import Dense, Experts, Switch
from windtunnel.model import LanguageModel
from windtunnel.recipes.llama import llama
from windtunnel.recipes.sizing import Sizes, Training, recipe

TRAINING = Training(learning_rate=1.2e-2)

# No published size is a decoder alone: the paper's models are encoders and decoders.
SIZES: Sizes = {"tiny": {"layers": 4, "width": 128, "heads": 4, "vocab": 1024, "context": 512, "hidden": 512}}


@recipe(SIZES)
def switch(
    *,
    vocab: int,
    layers: int,
    width: int,
    context: int,
    heads: int | None = None,
    hidden: int | None = None,
    experts: int = 8,
    every: int = 2,
    capacity: float = 1.25,
    jitter: float = 1e-2,
    balance: float = 1e-2,
    scale: float = 0.1,
) -> LanguageModel:
    """One ReLU expert for each token in every second block, dense ReLU MLPs of the same width in the others.

    every: which blocks have experts, the last of each `every`. scale: of the initial variance of all matrices (section
    2.4; drawn from a normal distribution that is not cut at two deviations). All else is the baseline's. One expert is
    the dense model.
    """
    base = llama(vocab=vocab, layers=layers, width=width, context=context, heads=heads)
    dense = Dense(hidden=hidden or 4 * width, activation="relu", bias=False)
    router = Switch(capacity=capacity, jitter=jitter, balance=balance)
    sparse = Experts(experts=experts, hidden=dense.hidden, router=router, activation="relu", gated=False)
    blocks = tuple(
        block.replace(mlp=dense if index % every < every - 1 else sparse) for index, block in enumerate(base.blocks)
    )
    return base.replace(blocks=blocks, initial=ReducedFanIn(scale=scale))
