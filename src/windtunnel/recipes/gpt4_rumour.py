"""GPT-4 as rumoured: an unconfirmed third-party report (SemiAnalysis, July 2023). OpenAI has published no sizes."""

from windtunnel.mlps import Experts, TopK
from windtunnel.model import LanguageModel
from windtunnel.recipes.llama import llama
from windtunnel.recipes.sizing import Settings, Sizes, Training, recipe

TRAINING = Training(learning_rate=1.2e-2)

# Reported: 120 layers, 16 experts of about 111 billion parameters, two for each token, about 55 billion shared, one
# key/value head, 8k tokens. Width and hidden width are solved from these; "8x220b" is the rival rumour of 1.76
# trillion.
_COMMON: Settings = {
    "layers": 120,
    "width": 14_848,
    "heads": 116,
    "head_width": 128,
    "vocab": 100_256,
    "context": 8192,
}
SIZES: Sizes = {
    "1.8t": {"experts": 16, "hidden": 31_232, **_COMMON},
    "8x220b": {"experts": 8, "hidden": 59_776, **_COMMON},
}


@recipe(SIZES)
def gpt4_rumour(
    *,
    vocab: int,
    layers: int,
    width: int,
    context: int,
    heads: int | None = None,
    head_width: int | None = None,
    hidden: int | None = None,
    experts: int = 16,
    choices: int = 2,
    balance: float = 1e-2,
) -> LanguageModel:
    """A rumour, not a publication: top-2 of 16 ungated experts, multi-query attention, tied embeddings.

    experts: 8 instead of 16 halves what is stored and leaves what a token meets as it was. hidden: of one expert; 2.1 x
    width, the report's proportion, unless given. Routing is said to be simple: dropless top-k here. What the report
    does not say is the baseline's.
    """
    base = llama(
        vocab=vocab,
        layers=layers,
        width=width,
        context=context,
        heads=heads,
        kv_heads=1,
        head_width=head_width,
        tied=True,
    )
    mlp = Experts(
        experts=experts,
        hidden=hidden or max(1, round(2.1 * width)),
        router=TopK(choices=choices, renormalise=choices > 1, balance=balance),
        activation="gelu",
        gated=False,
    )
    return base.replace(blocks=tuple(block.replace(mlp=mlp) for block in base.blocks))
