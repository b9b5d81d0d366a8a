"""PaLM (Chowdhery et al. 2022, arXiv 2204.02311, section 2)."""

from windtunnel.init import FanIn
from windtunnel.mixers import Attention
from windtunnel.mlps import Gated
from windtunnel.model import Block, Head, LanguageModel
from windtunnel.norms import LayerNorm, RMSNorm
from windtunnel.positions import Rope
from windtunnel.recipes.sizing import Paper, Settings, Sizes, Training, heads_for, recipe
from windtunnel.residuals import Parallel, PreNorm

TRAINING = Training(learning_rate=2.4e-2)
PAPER = Paper(
    {
        "optimiser": "adafactor",
        "learning_rate": 0.01,
        "schedule": "rsqrt",
        "constant": 0.3,
        "warmup": 0.0,
        "cooldown": 0.0,
        "weight_decay": 1.0,
        "z_loss": 1e-4,
        "ramp": ((1 / 4, 50 / 255), (1 / 2, 115 / 255)),
    },
    why="section 5; its rate is constant for 10 000 of 255 000 steps, here for longer, so that short runs learn",
)

# Head width and hidden width are not printed in the paper; both are pinned by the published parameter counts.
_COMMON: Settings = {"vocab": 256_000, "context": 2048, "head_width": 256}
SIZES: Sizes = {
    "8b": {"layers": 32, "width": 4096, "heads": 16, **_COMMON},
    "62b": {"layers": 64, "width": 8192, "heads": 32, **_COMMON},
    "540b": {"layers": 118, "width": 18_432, "heads": 48, **_COMMON},
}


@recipe(SIZES)
def palm(
    *,
    vocab: int,
    layers: int,
    width: int,
    context: int,
    heads: int | None = None,
    head_width: int | None = None,
    hidden: int | None = None,
    parallel: bool = True,
    centred: bool = False,
) -> LanguageModel:
    """Parallel attention and SwiGLU behind one shared norm, one key/value head, RoPE, tied embeddings, no biases.

    parallel=False is the serial block that the paper compares with. centred: subtract the mean in the norms. The
    paper says layer norm without bias; the library that it credits computes RMS only, which is the default here.
    """
    norm = LayerNorm(bias=False) if centred else RMSNorm()
    block = Block(
        residual=Parallel(norm=norm) if parallel else PreNorm(norm=norm),
        mixer=Attention(
            heads=heads or heads_for(width),
            kv_heads=1,
            head_width=head_width,
            rope=Rope(theta=10_000.0),
        ),
        mlp=Gated(hidden=hidden or 4 * width),
    )
    return LanguageModel(
        vocab=vocab,
        width=width,
        context=context,
        blocks=(block,) * layers,
        norm=norm,
        head=Head(tied=True, scale=width**-0.5),
        initial=FanIn(embedding=1.0),
    )
