"""The Axial Transformer (Ho et al. 2019, arXiv 1912.12180): a model of grids that attends along one axis at a time."""

from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from windtunnel.embedding import HeadLayer
from windtunnel.errors import InputError
from windtunnel.layer import Context, Cost
from windtunnel.model import Block, BlockLayer
from windtunnel.norms import Norm
from windtunnel.residuals import BlockOutput
from windtunnel.root import Encoded, Model, ModelLayer, ModelState

_ID_BYTES = 8


class AxialTransformer(Model):
    """Cells of a grid of `rows` x `columns` in raster order, each predicted from all before it (section 3).

        upper:  u = pixels + positions + condition; the outer blocks, along rows and columns in turn; one row down
        inner:  h = pixels one column to the right + u + positions + condition; the inner blocks, along rows
        logits = head(norm(h))

    The first token is the condition (a start symbol, a class), those after it are the pixels in raster order, so the
    logits at token t are for cell t from the pixels before it: the paper's shifts, in a language model's convention.
    outer: blocks at even places run along complete rows and need no mask (`UnmaskedAttention`), those at odd places
    along columns with a causal mixer. inner: causal mixers. embedding.positions are those of the cells in raster order,
    added in both parts. Sequences may be shorter than the grid, never longer. Documents cannot share a grid.
    """

    rows: int
    columns: int
    inner: tuple[Block, ...]
    outer: tuple[Block, ...] = ()
    norm: Norm | None = None

    def validate(self) -> None:
        super().validate()
        cells = self.rows * self.columns
        self.require(self.rows > 0, f"rows must be positive, got {self.rows}")
        self.require(self.columns > 0, f"columns must be positive, got {self.columns}")
        self.require(
            cells >= self.context,
            f"rows {self.rows} x columns {self.columns} is a grid of {cells} cells, too few for context {self.context}",
        )
        self.require(len(self.layers) > 0, "outer and inner must not both be empty")
        self.require(len(self.outer) % 2 == 0, f"outer blocks come in pairs, row and column, got {len(self.outer)}")
        causal = [*self.outer[1::2], *self.inner]
        self.require(
            all(block.mixer.causal for block in causal),
            "column blocks (outer 1, 3, ..) and inner blocks need causal mixers: they would see what they predict",
        )
        self.require(
            not any(block.residual.normalized for block in self.layers), "normalised blocks need a LanguageModel"
        )

    @property
    def layers(self) -> tuple[Block, ...]:
        return self.outer + self.inner

    @property
    def packs_documents(self) -> bool:
        return False

    def build(self) -> "AxialTransformerLayer":
        return AxialTransformerLayer(self)


class GridState(NamedTuple):
    """What is known of the grid between two calls.

    condition [b d]; pixels [b n], ids of the row that is not complete; above [b m d], u for what is left of the row of
    the cell that was last predicted.
    """

    condition: Tensor
    pixels: Tensor
    above: Tensor


class AxialTransformerLayer(ModelLayer):
    """The module of an `AxialTransformer`; `blocks` holds the outer blocks, then the inner ones.

    States of column blocks hold `columns` sequences for each one of the batch, and grow once a row; those of inner
    blocks hold the current row. The last entry of `ModelState.blocks` is the `GridState`.
    """

    def __init__(self, spec: AxialTransformer) -> None:
        super().__init__(spec)
        self.columns = spec.columns
        self.blocks = nn.ModuleDict({str(index): block.build(spec.width) for index, block in enumerate(spec.layers)})
        self.norm = spec.norm.build(spec.width) if spec.norm is not None else None
        self.head: HeadLayer = spec.head.build(spec.vocab, spec.width)

    def encode(self, tokens: Tensor, state: ModelState | None, context: Context) -> Encoded:
        first, count = _cell(state), tokens.shape[1]
        self._check(first + count)
        before = self.initial_state(tokens.shape[0]) if state is None else state
        grid: GridState = before.blocks[-1]
        run = _Pass(context.seed, list(before.blocks[:-1]) if state is not None else None)

        condition = self.embedding.vectors(tokens[:, 0]) if first == 0 else grid.condition
        pixels = torch.cat([grid.pixels, tokens[:, 1:] if first == 0 else tokens], 1)
        complete = pixels.shape[1] // self.columns * self.columns
        upper = self._upper(run, pixels[:, :complete], condition, max(first - 1, 0) // self.columns)
        above = torch.cat([grid.above, upper], 1)  # of the cells from `first` to the end of the last one's row

        column = torch.arange(first, first + count, device=tokens.device) % self.columns
        right = self.embedding.vectors(tokens) * (column > 0)[:, None]  # a row begins without its left neighbour
        x = self._inner(run, self._placed(right + condition[:, None], first) + above[:, :count], tokens, first)
        x = x if self.norm is None else self.norm(x)
        kept = GridState(condition, pixels[:, complete:], above[:, count:])
        states = (*run.states, kept) if run.states is not None else None
        return Encoded(x, states, run.losses, run.metrics)

    def _check(self, length: int) -> None:
        cells = self.spec.rows * self.columns
        if length > cells:
            raise InputError(
                f"{length} tokens do not fit into a grid of {self.spec.rows} rows x {self.columns} columns = {cells}; "
                "use a longer `context`, or more rows"
            )

    def _upper(self, run: "_Pass", pixels: Tensor, condition: Tensor, row: int) -> Tensor:
        """u, b (r c) d, of complete rows of pixels [b (r c)], of which the first is row `row`; not yet moved down."""
        x = self._placed(self.embedding.vectors(pixels) + condition[:, None], row * self.columns)
        if not pixels.shape[1]:
            return x
        ids, x = as_grid(pixels, self.columns), as_grid(x, self.columns)
        for index, layer in enumerate(self._layers()[: self._outer]):
            if index % 2 == 0:
                x = from_rows(run.call(layer, index, as_rows(x), 0, as_rows(ids), keep=False), ids)
            else:
                x = from_columns(run.call(layer, index, as_columns(x), row, as_columns(ids)), ids)
        return x.flatten(1, 2)

    def _inner(self, run: "_Pass", x: Tensor, tokens: Tensor, first: int) -> Tensor:
        """The rest of a row that was begun before, then whole rows side by side, then the beginning of the last one."""
        batch, count, width = x.shape
        begun = first % self.columns
        rest = min(self.columns - begun, count) if begun else 0
        whole = (count - rest) // self.columns * self.columns
        parts = []
        if rest:
            parts.append(self._along(run, x[:, :rest], tokens[:, :rest], begun, rest / count))
            if begun + rest == self.columns:
                self._forget_row(run, batch)
        if whole:
            rows, ids = (y[:, rest : rest + whole].reshape(-1, self.columns, *y.shape[2:]) for y in (x, tokens))
            parts.append(self._along(run, rows, ids, 0, whole / count, keep=False).reshape(batch, whole, width))
        if rest + whole < count:
            share = 1 - (rest + whole) / count
            parts.append(self._along(run, x[:, rest + whole :], tokens[:, rest + whole :], 0, share))
        return torch.cat(parts, 1)

    def _along(self, run: "_Pass", x: Tensor, ids: Tensor, column: int, share: float, keep: bool = True) -> Tensor:
        """The inner blocks along one stretch of a row [b t d] that begins at `column`."""
        for index, layer in list(enumerate(self._layers()))[self._outer :]:
            x = run.call(layer, index, x, column, ids, keep, share)
        return x

    def _forget_row(self, run: "_Pass", batch: int) -> None:
        if run.states is not None:
            run.states[self._outer :] = self._inner_states(batch)

    def _placed(self, x: Tensor, first: int) -> Tensor:
        """x [b t d] with the positions of the cells from `first` on."""
        positions = self.embedding.positions
        return x if positions is None else x + positions(_stretch(x, first), x)

    @property
    def _outer(self) -> int:
        outer: tuple[Block, ...] = self.spec.outer
        return len(outer)

    def _layers(self) -> list[BlockLayer]:
        return [block for block in self.blocks.values() if isinstance(block, BlockLayer)]

    def _inner_states(self, batch: int) -> list[Any]:
        like = self.embedding.weight
        return [each.mixer.initial_state(batch, like.device, like.dtype) for each in self._layers()[self._outer :]]

    def initial_state(self, batch: int) -> ModelState:
        like, outer = self.embedding.weight, []
        for index, layer in enumerate(self._layers()[: self._outer]):
            along = layer.mixer.initial_state(batch * self.columns, like.device, like.dtype)
            outer.append(along if index % 2 else ())  # complete rows need no state
        width = self.spec.width
        grid = GridState(
            like.new_zeros(batch, width),
            torch.zeros(batch, 0, dtype=torch.int64, device=like.device),
            like.new_zeros(batch, self.columns, width),  # nothing is above the first row
        )
        return ModelState(0, (*outer, *self._inner_states(batch), grid))

    def reserve(self, batch: int, capacity: int, chunk: int, dtype: torch.dtype | None = None) -> ModelState:
        """Refused: an engine's rows stand at different places, those of a batch of grids at one."""
        raise InputError(
            f"{self.spec.kind} is sampled with every row of a batch at the same cell, so it cannot serve requests; "
            "`windtunnel draw` draws its pictures"
        )

    def costs(self, length: int) -> list[Cost]:
        """Outer blocks meet the pixels of complete rows (never the last token's row), inner ones each cell."""
        complete, whole, part = (length - 1) // self.columns, length // self.columns, length % self.columns
        found = self.embedding.costs(length)
        for index, layer in enumerate(self._layers()):
            if index < self._outer:
                stretches = [(complete if index % 2 else self.columns, complete * self.columns)]
            else:
                stretches = [(self.columns, whole * self.columns), (part, part)]
            for along, cells in stretches:
                found += [cost.times(cells / length) for cost in layer.costs(along)] if cells else []
        return found + (self.norm.costs(length) if self.norm is not None else []) + self.head.costs(length)

    def state_bytes(self, length: int, element: int = 4) -> int:
        complete, column = (length - 1) // self.columns, (length - 1) % self.columns
        grid = (self.columns - column) * self.spec.width * element + column * _ID_BYTES
        layers = self._layers()
        upper = sum(layer.state_bytes(complete, element) for layer in layers[1 : self._outer : 2])
        row = sum(layer.state_bytes(length % self.columns, element) for layer in layers[self._outer :])
        return int(grid + self.columns * upper + row)


class _Pass:
    """One call of the model: the states as they become, and what the layers report."""

    def __init__(self, seed: int | None, states: list[Any] | None) -> None:
        self.seed, self.states = seed, states
        self.losses: dict[str, Tensor] = {}
        self.metrics: dict[str, Tensor] = {}

    def call(
        self,
        layer: BlockLayer,
        index: int,
        x: Tensor,
        first: int,
        ids: Tensor,
        keep: bool = True,
        share: float = 1.0,
    ) -> Tensor:
        """A block on x [n t d], from place `first` on. keep: its state goes on. share: of the cells, for reports."""
        context = replace(_stretch(x, first), tokens=ids, seed=self.seed, layer=index)
        states = self.states if keep else None
        out: BlockOutput = layer(x, context, states[index] if states is not None else None)
        if states is not None:
            states[index] = out.state
        for found, into in ((out.losses, self.losses), (out.metrics, self.metrics)):
            for name, value in found.items():
                full = f"blocks.{index}.{name}"
                into[full] = into[full] + share * value if full in into else share * value
        return out.hidden


def _cell(state: ModelState | None) -> int:
    """The cell that comes next."""
    position = state.position if state is not None else 0
    if not isinstance(position, int):
        raise InputError(f"position: the rows of a batch must stand at one cell of the grid, got {position}")
    return position


def _stretch(x: Tensor, first: int) -> Context:
    """The context of a stretch of an axis, x [n t d], that begins at place `first`."""
    end = first + x.shape[1]
    return Context(torch.arange(first, end, device=x.device), reach=end)


def as_grid(x: Tensor, columns: int) -> Tensor:
    """[b (r c) ..] as [b r c ..]."""
    return x.reshape(x.shape[0], -1, columns, *x.shape[2:])


def as_rows(x: Tensor) -> Tensor:
    """[b r c ..] as [(b r) c ..]: sequences along rows, the other axis beside the batch."""
    return x.flatten(0, 1)


def as_columns(x: Tensor) -> Tensor:
    """[b r c ..] as [(b c) r ..]."""
    return x.transpose(1, 2).flatten(0, 1)


def from_rows(x: Tensor, like: Tensor) -> Tensor:
    """[(b r) c d] as [b r c d], the sizes of `like` [b r c]."""
    return x.reshape(*like.shape, x.shape[-1])


def from_columns(x: Tensor, like: Tensor) -> Tensor:
    """[(b c) r d] as [b r c d], the sizes of `like` [b r c]."""
    batch, rows, columns = like.shape
    return x.reshape(batch, columns, rows, x.shape[-1]).transpose(1, 2)


def axial_pairs(rows: int, columns: int) -> tuple[int, int]:
    """Query-key pairs of one unmasked layer along rows, and along columns; a full one has (rows x columns)²."""
    return rows * columns**2, columns * rows**2
