"""Linear attention (Katharopoulos et al. 2020, arXiv 2006.16236, section 3): a past of any length in one matrix a head.

    y_t = sum_{s<=t} (q_t . k_s) v_s = q_t^T S_t,    S_t = S_{t-1} + k_t v_t^T

The numerator alone: a denominator is the same sum with v = 1. Three orders of evaluation give the same numbers: the
table of pairs (the reference), the state step by step, and chunks of tokens with the table inside each and the state
between them, which cost t (c + k) instead of t².
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from windtunnel.kernels.routing import working_dtype

CHUNK = 64


def seen(t: int, starts: Tensor | None, device: torch.device) -> Tensor:
    """True where query t may read key s: at or before it, in the same document; t s, or b 1 t s with documents."""
    triangle = torch.ones(t, t, dtype=torch.bool, device=device).tril_()
    if starts is None:
        return triangle
    numbers = starts.cumsum(1)
    return triangle & (numbers[:, None, :, None] == numbers[:, None, None, :])


def linear_attention_reference(q: Tensor, k: Tensor, v: Tensor, starts: Tensor | None = None) -> Tensor:
    """The equation with the full table of pairs, in plain torch."""
    pairs = torch.einsum("bhtk,bhsk->bhts", q, k).masked_fill(~seen(q.shape[2], starts, q.device), 0.0)
    return torch.einsum("bhts,bhse->bhte", pairs, v)


def linear_attention_recurrent(
    q: Tensor, k: Tensor, v: Tensor, state: Tensor | None = None, starts: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The equation token by token; takes and gives what `linear_attention` does."""
    state = empty_sums(k, v) if state is None else state
    outputs = []
    for t in range(q.shape[2]):
        if starts is not None:
            state = state.masked_fill(starts[:, t, None, None, None], 0.0)
        state = state + (k[:, :, t, :, None] @ v[:, :, t, None]).to(state.dtype)
        outputs.append(torch.einsum("bhk,bhke->bhe", q[:, :, t].to(state.dtype), state))
    return torch.stack(outputs, 2).to(v.dtype), state


def linear_attention(
    q: Tensor, k: Tensor, v: Tensor, state: Tensor | None = None, starts: Tensor | None = None, chunk: int = CHUNK
) -> tuple[Tensor, Tensor]:
    """y [b h t e] of q, k [b h t k] and v [b h t e], and the state [b h k e] after the last token.

    starts [b t]: True at the first token of a document inside a row; nothing before it is read. Sums are float32 at
    least, outside autocast; y has v's dtype. chunk changes the cost and the rounding alone.
    """
    dtype, t = working_dtype(v), q.shape[2]
    with torch.autocast(v.device.type, enabled=False):
        before = empty_sums(k, v) if state is None else state
        queries, keys, values = (chunked(x.to(dtype), min(chunk, t)) for x in (q, k, v))  # b h n c ...
        documents = None if starts is None else Documents(starts, min(chunk, t))
        pairs = queries @ keys.transpose(-1, -2)
        inside = seen(pairs.shape[-1], None, q.device)
        if documents is not None:
            inside = inside & (documents.numbers[..., :, None] == documents.numbers[..., None, :])
            queries = queries.masked_fill(~documents.open, 0.0)
            keys = keys.masked_fill(~documents.last, 0.0)
        y = pairs.masked_fill(~inside, 0.0) @ values
        befores, after = _carry(keys.transpose(-1, -2) @ values, before, documents)
        y = y + queries @ befores
        return y.flatten(2, 3)[:, :, :t].to(v.dtype), after


def _carry(sums: Tensor, state: Tensor, documents: "Documents | None") -> tuple[Tensor, Tensor]:
    """The state before each chunk, b h n k e, and after the last, from the sums of each chunk."""
    befores = []
    for index, own in enumerate(sums.unbind(2)):
        befores.append(state)
        if documents is not None:
            state = state.masked_fill(~documents.kept[:, :, index], 0.0)
        state = state + own
    return torch.stack(befores, 2), state


def empty_sums(k: Tensor, v: Tensor) -> Tensor:
    """The state before the first token."""
    return torch.zeros(*k.shape[:2], k.shape[-1], v.shape[-1], dtype=working_dtype(v), device=v.device)


def chunked(x: Tensor, size: int, value: float = 0.0) -> Tensor:
    """[b h t k] as [b h n c k], filled at the end with `value`."""
    return F.pad(x, (0, 0, 0, -x.shape[2] % size), value=value).reshape(*x.shape[:2], -1, size, x.shape[-1])


class Documents:
    """Which tokens of each chunk may read what came before it, and which are read by what comes after it.

    numbers [b 1 n c]: documents counted along the row. open [b 1 n c 1]: in the document that was open
    when the chunk began. last [b 1 n c 1]: in the document that is open at its end. kept [b 1 n 1 1]: whether a chunk
    carries on what came before it.
    """

    def __init__(self, starts: Tensor, size: int) -> None:
        numbers = starts.cumsum(1)
        fill = numbers[:, -1:].expand(-1, -numbers.shape[1] % size)
        self.numbers = torch.cat([numbers, fill], 1).reshape(len(numbers), 1, -1, size)
        ends = self.numbers[..., -1:]
        begins = torch.cat([torch.zeros_like(ends[:, :, :1]), ends[:, :, :-1]], 2)
        self.open = (self.numbers == begins)[..., None]
        self.last = (self.numbers == ends)[..., None]
        self.kept = (begins == ends)[..., None]
