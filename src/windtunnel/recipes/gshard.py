"""GShard's top-2 experts (Lepikhin et al. 2020, arXiv 2006.16668), which GPT-Neo's first code base offers too."""

from typing import Literal

from windtunnel.mlps import Dense, Experts, GShard
from windtunnel.model import LanguageModel
from windtunnel.recipes.llama import llama
from windtunnel.recipes.sizing import Sizes, Training, recipe

TRAINING = Training(learning_rate=1.2e-2)

# No published size is a decoder alone: the paper's models are encoders and decoders.
SIZES: Sizes = {"tiny": {"layers": 4, "width": 128, "heads": 4, "vocab": 1024, "context": 512, "hidden": 512}}


@recipe(SIZES)
def gshard(
    *,
    vocab: int,
    layers: int,
    width: int,
    context: int,
    heads: int | None = None,
    hidden: int | None = None,
    experts: int = 16,
    every: int = 2,
    capacity: float = 1.25,
    group: int = 1024,
    second: Literal["all", "none", "threshold", "random"] = "random",
    balance: float = 1e-2,
    mesh: bool = False,
) -> LanguageModel:
    """Two ReLU experts for each token in every second block, dense ReLU MLPs of the same width in the others.

    every: which blocks have experts, the last of each `every`. second: when the second expert is used. mesh: capacity
    as in Mesh TensorFlow, without the factor of 2; GPT-Neo's option is mesh=True with 16 experts of 4096 whatever the
    width. All else is the baseline's.
    """
    base = llama(vocab=vocab, layers=layers, width=width, context=context, heads=heads)
    dense = Dense(hidden=hidden or 4 * width, activation="relu", bias=False)
    router = GShard(capacity=capacity, group=group, second=second, balance=balance, mesh=mesh)
    sparse = Experts(experts=experts, hidden=dense.hidden, router=router, activation="relu", gated=False)
    blocks = tuple(
        block.replace(mlp=dense if index % every < every - 1 else sparse) for index, block in enumerate(base.blocks)
    )
    return base.replace(blocks=blocks)
