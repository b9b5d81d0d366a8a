"""The router before attention: an experiment, not a paper. Experts are chosen from the block's input, or as usual."""

from typing import Literal

from windtunnel.mlps import Experts, Hash, TopK
from windtunnel.model import LanguageModel
from windtunnel.norms import RMSNorm
from windtunnel.recipes.llama import llama
from windtunnel.recipes.sizing import Sizes, Training, gated_hidden, one_of, recipe
from windtunnel.residuals import Parallel, PreNorm, RouteFirst

TRAINING = Training(learning_rate=1.2e-2)

SIZES: Sizes = {"tiny": {"layers": 4, "width": 128, "heads": 4, "vocab": 1024, "context": 512, "hidden": 256}}
_NORM = RMSNorm()
_RESIDUALS = {
    "early": RouteFirst(norm=_NORM),
    "early-own-norm": RouteFirst(norm=_NORM, own_norm=True),
    "late": PreNorm(norm=_NORM),
    "parallel": Parallel(norm=_NORM),
    "hash": PreNorm(norm=_NORM),
}


@recipe(SIZES)
def router_first(
    *,
    vocab: int,
    layers: int,
    width: int,
    context: int,
    heads: int | None = None,
    hidden: int | None = None,
    route: Literal["early", "early-own-norm", "late", "parallel", "hash"] = "early",
    experts: int = 8,
    choices: int = 2,
    balance: float = 1e-2,
) -> LanguageModel:
    """Dropless top-k experts in the baseline, the decision taken at different places of the block.

    route: early, from the block's input before attention, through attention's norm; early-own-norm, through a norm of
    the router's own; late, after attention (the usual place); parallel, attention and experts side by side behind one
    norm; hash, by the token's id, which learns nothing. hidden: of one expert; by default a token's experts have the
    parameters of the baseline's MLP. early and late have the same parameters and operations. An early decision leaves
    the time of attention for bringing tokens and experts together.
    """
    base = llama(vocab=vocab, layers=layers, width=width, context=context, heads=heads)
    learned = TopK(choices=choices, renormalise=choices > 1, balance=balance)
    mlp = Experts(
        experts=experts,
        hidden=hidden or max(1, gated_hidden(width) // choices),
        router=Hash(choices=choices) if route == "hash" else learned,
    )
    one_of("route", route, tuple(_RESIDUALS))
    residual = _RESIDUALS[route]
    return base.replace(blocks=tuple(block.replace(residual=residual, mlp=mlp) for block in base.blocks))
