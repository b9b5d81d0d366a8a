"""Axial positions for text (Kitaev et al. 2020, Reformer, section 2.4), in a GPT whose attention is dense."""

from windtunnel.init import Normal
from windtunnel.mixers import Attention
from windtunnel.mlps import Dense
from windtunnel.model import Block, Embedding, Head, LanguageModel
from windtunnel.norms import LayerNorm
from windtunnel.positions import Axial
from windtunnel.recipes.sizing import Sizes, Training, grid_for, heads_for, one_of, recipe
from windtunnel.residuals import PreNorm

TRAINING = Training(learning_rate=3e-3)

SIZES: Sizes = {}


@recipe(SIZES)
def axial_text(
    *,
    vocab: int,
    layers: int,
    width: int,
    context: int,
    heads: int | None = None,
    hidden: int | None = None,
    combine: str = "concatenate",
    rows: int | None = None,
    row_width: int | None = None,
    deviation: float = 0.02,
) -> LanguageModel:
    """GPT-3 without bands, its table of positions replaced by one for rows and one for columns of a grid.

    combine: concatenate (Reformer), sum or average. rows: of the grid, by context / rows columns; None is the most
    even grid. row_width: numbers of the row's vector where they are concatenated, None half. deviation: of the tables'
    initial values; Reformer's 1 is far above the token vectors' 0.02 of this model, which is taken here.
    """
    one_of("combine", combine, ("concatenate", "sum", "average"))
    norm = LayerNorm()
    positions = Axial(
        length=context,
        shape=grid_for(context, rows),
        combine=combine,  # type: ignore[arg-type]
        widths=None if row_width is None else (row_width, width - row_width),
        deviation=deviation,
    )
    block = Block(
        residual=PreNorm(norm=norm),
        mixer=Attention(heads=heads or heads_for(width), bias=True),
        mlp=Dense(hidden=hidden or 4 * width),
    )
    return LanguageModel(
        vocab=vocab,
        width=width,
        context=context,
        embedding=Embedding(positions=positions),
        blocks=(block,) * layers,
        norm=norm,
        head=Head(tied=True),
        initial=Normal(std=0.02, scale_writes=True),
    )
