"""What a trained model's vectors, matrices and scores have grown to, beside what bounds them (nGPT, arXiv 2410.01131).

In nGPT every weight vector and hidden state has norm 1, every product of two of them is a cosine, attention scores are
at most sqrt(k) max(s_qk²), and matrices stay well conditioned (section 2 and figure 5). A GPT has no such bounds. Any
model can be measured; where its architecture guarantees a bound, the bound stands beside the figure.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from windtunnel.init import roles
from windtunnel.layer import Context
from windtunnel.mixers import AttendingLayer
from windtunnel.model import BlockLayer
from windtunnel.norms import ScaleLayer
from windtunnel.report.tables import Table
from windtunnel.residuals import BlockOutput, NormalizedLayer
from windtunnel.root import ModelLayer

_STREAM_AXIS = {"embedding": -1, "unembedding": -1, "reads": -1, "writes": -2}
_TOKENS = 512  # of a table, evenly spread: all pairs of a large vocabulary would not fit in memory


class Figure(NamedTuple):
    """One distribution by its ends and its mean. bound: what its size cannot exceed; condition: of a matrix."""

    what: str
    where: str
    smallest: float
    largest: float
    mean: float
    bound: float | None = None
    condition: float | None = None


@dataclass(frozen=True)
class Bounds:
    """Every figure of one model on one batch."""

    figures: tuple[Figure, ...]

    def of(self, what: str) -> list[Figure]:
        """The figures of one kind."""
        return [figure for figure in self.figures if figure.what == what]

    def to_json(self) -> dict[str, Any]:
        """Every figure as a JSON object."""
        return {"figures": [figure._asdict() for figure in self.figures]}

    def table(self) -> Table:
        """A row a figure."""
        columns = ["what", "where", "smallest", "largest", "mean", "bound", "condition"]
        rows = [
            [figure.what, figure.where, *("" if value is None else f"{value:.3g}" for value in figure[2:])]
            for figure in self.figures
        ]
        return Table(caption="Bounds", columns=columns, rows=rows, numeric=range(2, len(columns)))


@torch.no_grad()
def bounds(model: ModelLayer, tokens: Tensor, documents: Tensor | None = None) -> Bounds:
    """Measure a model, and what it does with tokens [b t].

    vector norm, condition: of each matrix along its stream side, and largest over smallest singular value (None for a
    singular one). token product: of pairs of rows of each table. hidden norm, hidden product: after each block, the
    products of different positions of a row (none where a block is given one position at a time). output product: of
    last hidden states and rows of the output table, its scales left out. score: attention logits of keys that come no
    later than their query. scale: learned scales, by size. Takes a singular value decomposition of every matrix, and
    memory for whole attention maps.
    """
    figures = [*_matrices(model), *_tables(model), *_scales(model)]
    with _watched(model, figures):
        hidden = model.encode(tokens, None, model.context_of(tokens, documents=documents)).hidden
    table = model.embedding.weight if model.head.weight is None else model.head.weight
    products = hidden.double() @ table[_chosen(table)].double().T
    stays = all(figure.bound is not None for figure in figures if figure.what in ("hidden norm", "token product"))
    figures.append(_figure("output product", "head", products, _unit(stays)))
    return Bounds(tuple(figures))


def _figure(
    what: str, where: str, values: Tensor, bound: float | None = None, condition: float | None = None
) -> Figure:
    wide = values.double()
    return Figure(what, where, wide.min().item(), wide.max().item(), wide.mean().item(), bound, condition)


def _unit(holds: bool) -> float | None:
    return 1.0 if holds else None


def _matrices(model: ModelLayer) -> Iterator[Figure]:
    for name, role in roles(model).items():
        weight = model.get_parameter(name)
        if weight.dim() < 2 or role.kind not in _STREAM_AXIS:
            continue
        singular = torch.linalg.svdvals(weight.double())
        smallest = singular[..., -1].min().item()
        condition = (singular[..., 0] / singular[..., -1]).max().item() if smallest > 0 else None
        norms = weight.double().norm(dim=_STREAM_AXIS[role.kind])
        yield _figure("vector norm", name, norms, _unit(model.normalized), condition)


def _tables(model: ModelLayer) -> Iterator[Figure]:
    for name, role in roles(model).items():
        weight = model.get_parameter(name)
        if role.kind in ("embedding", "unembedding") and weight.shape[0] > 1:
            yield _figure("token product", name, _products(weight[_chosen(weight)]), _unit(model.normalized))


def _scales(model: ModelLayer) -> Iterator[Figure]:
    for name, layer in model.named_modules():
        if isinstance(layer, ScaleLayer):
            yield _figure("scale", name, layer().abs())


def _chosen(table: Tensor) -> Tensor:
    """Rows of a table, all of them or an even spread."""
    return torch.linspace(0, len(table) - 1, min(len(table), _TOKENS), device=table.device).long()


def _products(vectors: Tensor) -> Tensor:
    """Inner products of different vectors, [... n d] to [m]."""
    wide = vectors.double()
    count = wide.shape[-2]
    different = ~torch.eye(count, dtype=torch.bool, device=wide.device)
    return (wide @ wide.transpose(-1, -2))[..., different]


@contextmanager
def _watched(model: ModelLayer, figures: list[Figure]) -> Iterator[None]:
    """While this lasts, the calls of blocks, and of mixers that have attention maps, add their figures."""
    handles = []
    for path, layer in model.named_modules():
        if isinstance(layer, AttendingLayer):

            def scored(mixer: Any, given: tuple[Any, ...], path: str = path) -> None:
                figures.append(_score(path, mixer, *given[:2]))

            handles.append(layer.register_forward_pre_hook(scored))
        elif isinstance(layer, BlockLayer):

            def left(block: Any, given: tuple[Any, ...], out: BlockOutput, path: str = path) -> None:
                bound = _unit(isinstance(block.residual, NormalizedLayer))
                figures.append(_figure("hidden norm", path, out.hidden.double().norm(dim=-1), bound))
                if out.hidden.shape[-2] > 1:
                    figures.append(_figure("hidden product", path, _products(out.hidden), bound))

            handles.append(layer.register_forward_hook(left))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _score(path: str, mixer: AttendingLayer, x: Tensor, context: Context) -> Figure:
    scores = mixer.attention_scores(x, context)
    earlier = torch.ones(scores.shape[-2:], dtype=torch.bool, device=x.device).tril_()
    return _figure("score", path, scores[..., earlier], mixer.score_bound)
