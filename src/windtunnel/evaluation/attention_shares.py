"""How much of its attention a model gives to what matters, to noise and to the first token (attention noise).

The measurement of the Differential Transformer (Ye et al. 2024, arXiv 2410.05258, section 3.3 and table 3). Queries are
chosen tokens, usually those that must give the answer; a span is a set of key positions. For a map a of one head

    share = mean over queries of (sum of a over the span) / (sum of a over all keys)
    magnitude = the same of |a|

The division makes maps comparable: rows of plain attention sum to 1, those of differential attention to 1 - lambda.
Its entries may be negative, so that positive noise and negative noise cancel in `share` but not in `magnitude`; for
plain attention the two are equal.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from windtunnel.errors import InputError
from windtunnel.mixers import AttendingLayer
from windtunnel.report.tables import Table
from windtunnel.root import ModelLayer

FIRST = "first token"


class Share(NamedTuple):
    """One head's attention to one span; layer is the mixer's path in the model."""

    layer: str
    head: int
    span: str
    share: float
    magnitude: float


@dataclass(frozen=True)
class AttentionShares:
    """Shares of every layer that has attention maps, every head and every span."""

    rows: tuple[Share, ...]

    def mean(self, span: str, layer: str | None = None) -> float:
        """Mean share of a span over heads, and over layers unless one is named."""
        chosen = [row.share for row in self.rows if row.span == span and layer in (None, row.layer)]
        return sum(chosen) / len(chosen)

    def to_json(self) -> dict[str, Any]:
        """Every row, and the mean of each span."""
        spans = dict.fromkeys(row.span for row in self.rows)
        return {"rows": [row._asdict() for row in self.rows], "mean": {span: self.mean(span) for span in spans}}

    def table(self) -> Table:
        """A row a layer: means over its heads."""
        spans = list(dict.fromkeys(row.span for row in self.rows))
        layers = list(dict.fromkeys(row.layer for row in self.rows))
        rows = [[layer, *(f"{self.mean(span, layer):.3f}" for span in spans)] for layer in layers]
        rows.append(["all", *(f"{self.mean(span):.3f}" for span in spans)])
        return Table(
            caption="Share of attention",
            columns=["layer", *spans],
            rows=rows,
            numeric=range(1, len(spans) + 1),
            note="Of each query's attention, the part on these keys; mean over queries and heads.",
        )


@torch.no_grad()
def attention_shares(
    model: ModelLayer,
    tokens: Tensor,
    queries: Tensor,
    spans: Mapping[str, Tensor],
    documents: Tensor | None = None,
) -> AttentionShares:
    """Measure every mixer that has attention maps (`AttendingLayer`); others, recurrences for one, are passed over.

    tokens [b t]; queries [b t], True where attention is read; spans: by name, True at the keys that belong to it
    [b t]. The span "first token" (of a row, or of each document) is added. Needs memory for a whole map of each head.
    Raises `InputError` where a shape is not that of the tokens, no query is chosen, or no mixer has maps.
    """
    for name, chosen in {"queries": queries, **spans}.items():
        if chosen.shape != tokens.shape or chosen.dtype != torch.bool:
            raise InputError(f"{name}: expected booleans of the tokens' shape {tuple(tokens.shape)}")
    if not queries.any():
        raise InputError("queries: no token is chosen")
    keys = {**spans, FIRST: _first(tokens, documents)}
    rows: list[Share] = []
    with _watched(model, queries, keys, rows):
        model(tokens, documents=documents)
    if not rows:
        raise InputError("model: none of its mixers has attention maps")
    return AttentionShares(tuple(rows))


def _first(tokens: Tensor, documents: Tensor | None) -> Tensor:
    """True at the first token of each row and of each document in it."""
    first = torch.zeros_like(tokens, dtype=torch.bool)
    first[:, 0] = True
    if documents is not None:
        first[:, 1:] = documents[:, 1:] != documents[:, :-1]
    return first


@contextmanager
def _watched(model: ModelLayer, queries: Tensor, keys: Mapping[str, Tensor], rows: list[Share]) -> Iterator[None]:
    """While this lasts, every call of a mixer that has maps adds its rows."""
    handles = []
    for path, layer in model.named_modules():
        if isinstance(layer, AttendingLayer):

            def measure(mixer: Any, given: tuple[Any, ...], path: str = path) -> None:
                rows.extend(_measured(path, mixer.attention_maps(given[0], given[1]), queries, keys))

            handles.append(layer.register_forward_pre_hook(measure))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _measured(path: str, maps: Tensor, queries: Tensor, keys: Mapping[str, Tensor]) -> Iterator[Share]:
    wide = maps.double().transpose(1, 2)[queries]  # n h s: the chosen queries of all rows
    row = queries.nonzero()[:, 0]
    for span, chosen in keys.items():
        inside = chosen[row].unsqueeze(1)  # n 1 s
        share = ((wide * inside).sum(-1) / wide.sum(-1)).mean(0)  # h
        magnitude = ((wide.abs() * inside).sum(-1) / wide.abs().sum(-1)).mean(0)
        for head, (signed, unsigned) in enumerate(zip(share.tolist(), magnitude.tolist(), strict=True)):
            yield Share(path, head, span, signed, unsigned)
