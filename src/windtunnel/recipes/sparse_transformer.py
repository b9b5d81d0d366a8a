"""Sparse Transformer (Child et al. 2019, arXiv 1904.10509, sections 4 and 5)."""

import math
from typing import Literal

from windtunnel.errors import InputError
from windtunnel.init import Normal
from windtunnel.mixers import Fixed, Pattern, SparseAttention, Strided
from windtunnel.mlps import Dense
from windtunnel.model import Block, Embedding, Head, LanguageModel
from windtunnel.norms import LayerNorm
from windtunnel.positions import Axial
from windtunnel.recipes.sizing import Settings, Sizes, Training, heads_for, recipe
from windtunnel.residuals import PreNorm

TRAINING = Training(learning_rate=3e-3)

_COMMON: Settings = {"vocab": 256, "width": 512, "context": 12_288, "stride": 128}
SIZES: Sizes = {
    "enwik8": {"layers": 30, "heads": 8, "pattern": "fixed", "columns": 32, **_COMMON},
    "imagenet64": {"layers": 48, "heads": 16, "pattern": "strided", **_COMMON},
}


@recipe(SIZES)
def sparse_transformer(
    *,
    vocab: int,
    layers: int,
    width: int,
    context: int,
    heads: int | None = None,
    hidden: int | None = None,
    pattern: Literal["fixed", "strided"] = "fixed",
    combined: Literal["merged", "layers", "heads"] = "merged",
    stride: int | None = None,
    columns: int | None = None,
) -> LanguageModel:
    """Attention factorised in two: a neighbourhood, and what carries information between neighbourhoods.

    pattern: "fixed" for text, "strided" for what has a period. combined: both sets in every head, one of them by turns
    of layers, or by turns of heads. stride: None is the square root of the context, for a cost of T sqrt(T). columns:
    summaries of each block in the fixed pattern, None is a quarter of the stride; heads by turns take different ones.
    Positions are a learned vector for the block and one for the place in it. The paper starts its output matrix from
    zero and other matrices from N(0, 0.125/sqrt(fan-in)); here all but positions start as in GPT-2.
    """
    heads = heads or heads_for(width)
    stride = stride or max(2, round(math.sqrt(context)))
    columns = columns or max(1, stride // 4)
    _check(pattern, combined)

    def first(head: int) -> Pattern:
        return Fixed(stride=stride, columns=columns, part="local") if pattern == "fixed" else _strided(stride, "band")

    def second(head: int) -> Pattern:
        if pattern == "strided":
            return _strided(stride, "stride")
        start = stride - columns * (1 + head // 2 % (stride // columns))
        return Fixed(stride=stride, columns=columns, first=start, part="summary")

    def patterns(layer: int) -> tuple[Pattern, ...]:
        if combined == "merged":
            whole = Fixed(stride=stride, columns=columns) if pattern == "fixed" else Strided(stride=stride)
            return (whole,)
        if combined == "layers":
            return ((second if layer % 2 else first)(0),)
        return tuple((second if head % 2 else first)(head) for head in range(heads))

    norm = LayerNorm()
    mlp = Dense(hidden=hidden or 4 * width)
    mixers = [SparseAttention(heads=heads, patterns=patterns(layer), bias=True) for layer in range(layers)]
    return LanguageModel(
        vocab=vocab,
        width=width,
        context=context,
        embedding=Embedding(positions=_places(context, stride, width)),
        blocks=tuple(Block(residual=PreNorm(norm=norm), mixer=mixer, mlp=mlp) for mixer in mixers),
        norm=norm,
        head=Head(tied=True),
        initial=Normal(std=0.02, scale_writes=True),
    )


def _places(context: int, stride: int, width: int) -> Axial:
    """Section 5.3: as many vectors as blocks and places in a block, from N(0, 0.125/sqrt(2 width))."""
    blocks = -(-context // stride)
    return Axial(length=blocks * stride, shape=(blocks, stride), combine="sum", deviation=0.125 / math.sqrt(2 * width))


def _strided(stride: int, part: Literal["band", "stride"]) -> Pattern:
    return Strided(stride=stride, part=part)


def _check(pattern: str, combined: str) -> None:
    for name, value, known in (
        ("pattern", pattern, ("fixed", "strided")),
        ("combined", combined, ("merged", "layers", "heads")),
    ):
        if value not in known:
            raise InputError(f"sparse_transformer: {name} {value!r} is none of {', '.join(known)}")
