"""The Axial Transformer for pictures of one channel (Ho et al. 2019, arXiv 1912.12180, section 3)."""

import math
from itertools import cycle, islice

from windtunnel.axial import AxialTransformer
from windtunnel.errors import InputError
from windtunnel.init import NearlyNothing, Normal
from windtunnel.mixers import Attention, Mixer, UnmaskedAttention
from windtunnel.mlps import Dense
from windtunnel.model import Block, Embedding, Head
from windtunnel.norms import LayerNorm
from windtunnel.positions import Axial
from windtunnel.recipes.sizing import Settings, Sizes, Training, heads_for, recipe
from windtunnel.residuals import PreNorm

TRAINING = Training(learning_rate=2e-3)

_GRID: Settings = {"vocab": 256, "context": 1024, "rows": 32, "columns": 32}
# One channel's model; the paper adds a third stack that reads the channels before it.
SIZES: Sizes = {"imagenet32": {"layers": 16, "width": 1536, "heads": 16, "hidden": 1536, **_GRID}}


@recipe(SIZES)
def axial_image(
    *,
    vocab: int,
    layers: int,
    width: int,
    context: int,
    heads: int | None = None,
    hidden: int | None = None,
    outer: int | None = None,
    rows: int | None = None,
    columns: int | None = None,
    positions: bool = True,
    nearly_nothing: bool = True,
) -> AxialTransformer:
    """LayerNorm, attention along rows and columns, GELU by a sigmoid, biases, positions summed from two tables.

    outer: how many of the layers are in the upper part, an even number; None is about half. The rest are inner ones.
    rows, columns: the grid, which holds the context; None is a square, or what the other one leaves. nearly_nothing:
    blocks begin as the identity and logits as zeros, as published; False is N(0, 0.02) everywhere.
    """
    norm, heads = LayerNorm(), heads or heads_for(width)
    columns = columns or (math.ceil(context / rows) if rows else math.ceil(math.sqrt(context)))
    rows = rows or math.ceil(context / columns)
    outer = 2 * ((layers + 1) // 4) if outer is None else outer
    if not 0 <= outer <= layers:
        raise InputError(f"outer: expected a number of the {layers} layers, got {outer}")

    def block(mixer: Mixer) -> Block:
        mlp = Dense(hidden=hidden or 4 * width, activation="gelu_sigmoid")
        return Block(residual=PreNorm(norm=norm), mixer=mixer, mlp=mlp)

    masked = block(Attention(heads=heads, bias=True))
    pair = (block(UnmaskedAttention(heads=heads, bias=True)), masked)
    table = Axial(length=rows * columns, shape=(rows, columns), combine="sum", deviation=5 / math.sqrt(width))
    return AxialTransformer(
        vocab=vocab,
        width=width,
        context=context,
        rows=rows,
        columns=columns,
        embedding=Embedding(positions=table if positions else None),
        outer=tuple(islice(cycle(pair), outer)),
        inner=(masked,) * (layers - outer),
        norm=norm,
        head=Head(bias=True),
        initial=NearlyNothing() if nearly_nothing else Normal(std=0.02, scale_writes=True),
    )
