"""Griffin (De et al. 2024, arXiv 2402.19427), and the skeleton that it shares with Hawk and with its own baseline."""

import math
from itertools import cycle, islice
from typing import Literal

from windtunnel.embedding import Embedding
from windtunnel.errors import InputError
from windtunnel.init import DepthFanIn
from windtunnel.mixers import RGLRU, Attention, Mixer, Recurrent
from windtunnel.mlps import Gated
from windtunnel.model import Block, Head, LanguageModel
from windtunnel.norms import RMSNorm
from windtunnel.positions import Rope
from windtunnel.recipes.sizing import Settings, Sizes, Training, heads_for, recipe
from windtunnel.residuals import PreNorm

TRAINING = Training(learning_rate=6e-3)

Memory = Literal["code", "text"]

# Table 2 and section 3.1: heads of 128. The tokenizer is not published; vocabulary as in the released presets.
_COMMON: Settings = {"vocab": 256_000, "context": 2048}
PUBLISHED: Sizes = {
    "100m": {"layers": 12, "width": 768, "recurrent_width": 1024, "heads": 6, **_COMMON},
    "200m": {"layers": 12, "width": 1024, "recurrent_width": 1536, "heads": 8, **_COMMON},
    "400m": {"layers": 12, "width": 1536, "recurrent_width": 2048, "heads": 12, **_COMMON},
    "1.3b": {"layers": 24, "width": 2048, "recurrent_width": 2560, "heads": 16, **_COMMON},
    "3b": {"layers": 24, "width": 3072, "recurrent_width": 4096, "heads": 24, **_COMMON},
    "7b": {"layers": 32, "width": 4096, "recurrent_width": 5632, "heads": 32, **_COMMON},
    "14b": {"layers": 40, "width": 5120, "recurrent_width": 8192, "heads": 40, **_COMMON},
}
_GEMMA: Settings = {"vocab": 256_000, "context": 8192, "window": 2048, "scaled": True, "soft_cap": 30.0}
_2B: Settings = {"layers": 26, "width": 2560, "recurrent_width": 2560, "heads": 10, "gate_blocks": 10}
_9B: Settings = {"layers": 38, "width": 4096, "recurrent_width": 4096, "heads": 16, "gate_blocks": 16}
SIZES: Sizes = {**PUBLISHED, "recurrentgemma-2b": {**_2B, **_GEMMA}, "recurrentgemma-9b": {**_9B, **_GEMMA}}


@recipe(SIZES)
def griffin(
    *,
    vocab: int,
    layers: int,
    width: int,
    context: int,
    heads: int | None = None,
    hidden: int | None = None,
    recurrent_width: int | None = None,
    gate_blocks: int = 16,
    window: int = 1024,
    pattern: str = "RRA",
    memory: Memory = "code",
    scaled: bool = False,
    soft_cap: float | None = None,
) -> LanguageModel:
    """Recurrent (R) and local attention (A) layers in the order of `pattern`, cut off at the last layer.

    window: how far back a query sees; with itself that makes window + 1 keys, as in the authors' code. memory: how the
    decays start, see `RGLRU`. scaled and soft_cap: RecurrentGemma's embeddings times sqrt(width) and bounded logits.
    """
    if not pattern or set(pattern) - set("RA"):
        raise InputError(f"pattern: expected a word of R (recurrent) and A (attention), got {pattern!r}")
    if window < 1:
        raise InputError(f"window: expected at least 1, got {window}")
    mixers: dict[str, Mixer] = {}
    if "R" in pattern:
        mixers["R"] = recurrent(width, recurrent_width, gate_blocks, memory)
    if "A" in pattern:
        mixers["A"] = multi_query(width, heads, window + 1)
    order = tuple(mixers[kind] for kind in islice(cycle(pattern), layers))
    model = skeleton(vocab, width, context, order, hidden)
    scale = _in_bfloat16(math.sqrt(width)) if scaled else 1.0
    return model.replace(embedding=Embedding(scale=scale), head=Head(tied=True, soft_cap=soft_cap))


def skeleton(
    vocab: int, width: int, context: int, mixers: tuple[Mixer, ...], hidden: int | None = None
) -> LanguageModel:
    """Pre-norm blocks of a mixer and a gated GELU MLP of 3 x width with biases, tied embeddings (section 2.1)."""
    mlp = Gated(hidden=hidden or 3 * width, activation="gelu_tanh", bias=True)
    return LanguageModel(
        vocab=vocab,
        width=width,
        context=context,
        blocks=tuple(Block(residual=PreNorm(norm=RMSNorm()), mixer=mixer, mlp=mlp) for mixer in mixers),
        norm=RMSNorm(),
        head=Head(tied=True),
        initial=DepthFanIn(),
    )


def recurrent(width: int, recurrent_width: int | None, gate_blocks: int, memory: Memory) -> Recurrent:
    """The recurrent block; its width is 4/3 of the model's, in whole gate blocks, unless given (section 2.3)."""
    channels = recurrent_width or gate_blocks * max(1, round(4 * width / 3 / gate_blocks))
    if channels % gate_blocks:
        raise InputError(f"recurrent_width: {channels} is no multiple of the {gate_blocks} gate blocks")
    return Recurrent(recurrent_width=channels, recurrence=RGLRU(blocks=gate_blocks, memory=memory))


def multi_query(width: int, heads: int | None, window: int | None) -> Attention:
    """One key/value head, a bias on the output alone, RoPE on the first half of each head, as in the authors' code."""
    heads = heads or heads_for(width)
    # Pairs are rotated: half of a head is rounded down to an even number, but not to none.
    rope = Rope(width=2 * max(1, width // heads // 4))
    return Attention(heads=heads, kv_heads=1, rope=rope, window=window, output_bias=True)


def _in_bfloat16(x: float) -> float:
    """x rounded to the 8 significant bits of bfloat16, in which RecurrentGemma holds this factor."""
    mantissa, exponent = math.frexp(x)
    return math.ldexp(round(mantissa * 256) / 256, exponent)
