"""Mixtral (Jiang et al. 2024, arXiv 2401.04088): dropless top-2 experts in the baseline."""

from windtunnel.mlps import Experts, TopK
from windtunnel.model import LanguageModel
from windtunnel.recipes.llama import llama
from windtunnel.recipes.sizing import Settings, Sizes, Training, gated_hidden, recipe

TRAINING = Training(learning_rate=1.2e-2)

_COMMON: Settings = {"kv_heads": 8, "vocab": 32_000, "theta": 1e6, "eps": 1e-5}
SIZES: Sizes = {
    "8x7b": {"layers": 32, "width": 4096, "heads": 32, "hidden": 14_336, "context": 32_768, **_COMMON},
    "8x22b": {"layers": 56, "width": 6144, "heads": 48, "hidden": 16_384, "context": 65_536, **_COMMON},
    "tiny": {"layers": 4, "width": 128, "heads": 4, "kv_heads": 2, "hidden": 256, "vocab": 1024, "context": 512},
}


@recipe(SIZES)
def mixtral(
    *,
    vocab: int,
    layers: int,
    width: int,
    context: int,
    heads: int | None = None,
    kv_heads: int | None = None,
    hidden: int | None = None,
    experts: int = 8,
    choices: int = 2,
    balance: float = 0.02,
    z_loss: float = 0.0,
    loss_free: bool = False,
    theta: float = 10_000.0,
    eps: float = 1e-6,
) -> LanguageModel:
    """SwiGLU experts in every block, `choices` of them for each token; nothing is dropped.

    hidden: of one expert; by default a token's experts have the parameters of the baseline's MLP. balance: coefficient
    of the load-balance loss, shared among the layers (0.02 in the published configuration; the published loss pools the
    layers' tokens, this one balances each layer). loss_free: balance by a bias on the choice instead; set balance=0
    with it. One expert and one choice are the baseline.
    """
    base = llama(
        vocab=vocab,
        layers=layers,
        width=width,
        context=context,
        heads=heads,
        kv_heads=kv_heads,
        theta=theta,
        eps=eps,
    )
    router = TopK(
        choices=choices, renormalise=choices > 1, balance=balance / layers, z_loss=z_loss, loss_free=loss_free
    )
    mlp = Experts(experts=experts, hidden=hidden or max(1, gated_hidden(width) // choices), router=router)
    return base.replace(blocks=tuple(block.replace(mlp=mlp) for block in base.blocks))
