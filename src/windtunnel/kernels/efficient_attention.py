"""Efficient attention (Shen et al. 2018, arXiv 1812.01243, section 3): queries read one summary for each key feature.

    E(q, k, v) = rho_q(q) (rho_k(k)^T v)

scaling: rho(y) = y / sqrt(n). softmax: rho_q over the features of each query, rho_k over the positions of each feature.
The second is not causal. Two different causal functions are made of it, both from means over the keys seen so far,

    l_t[c] = log sum_{s<=t} exp(k_s[c]),    M_t[c] = sum_{s<=t} exp(k_s[c] - l_t[c]) v_s

    separate:  y_t = softmax(q_t) . M_t            the key softmax restricted to the prefix
    joint:     y_t = softmax(q_t + l_t) . M_t      = sum_s (phi(q_t).phi(k_s)) v_s / sum_s phi(q_t).phi(k_s), phi = exp

`joint` is kernel attention with phi = exp, GPT-Neo's; any positive phi enters as k = log phi. In this form neither can
overflow, whatever the keys: l rises with t, so every weight exp(k_s - l_t) is at most 1, and so are both factors of
exp(k_s - l_r) exp(l_r - l_t) for s <= r <= t, by which a table of pairs becomes a matrix product.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from windtunnel.kernels.linear_attention import Documents, chunked, seen
from windtunnel.kernels.routing import working_dtype

CHUNK = 32
_NOTHING = float("-inf")
_FILL = -1e30  # a key that weighs nothing beside any other, and is still a number to subtract from


class Means(NamedTuple):
    """What is kept of the past: l, the log of each feature's mass [b h k], and M, its mean value [b h k e]."""

    mass: Tensor
    means: Tensor


def efficient_attention(q: Tensor, k: Tensor, v: Tensor, normalisation: str = "softmax") -> Tensor:
    """E(q, k, v), not causal: q, k [b h t k], v [b h t e]; "softmax" or "scaling". No factor 1/sqrt(k) (section 3)."""
    if normalisation == "scaling":
        return q @ (k.transpose(-1, -2) @ v) / k.shape[2]
    return q.softmax(-1) @ (k.softmax(2).transpose(-1, -2) @ v)


def causal_efficient_attention_reference(
    q: Tensor, k: Tensor, v: Tensor, joint: bool = False, starts: Tensor | None = None
) -> Tensor:
    """The weights of every pair, in plain torch."""
    hidden = ~seen(q.shape[2], starts, q.device)
    if joint:
        logits = (q[:, :, :, None] + k[:, :, None]).logsumexp(-1)  # b h t s
        return logits.masked_fill(hidden, _NOTHING).softmax(-1) @ v
    each = k[:, :, None].expand(-1, -1, q.shape[2], -1, -1).masked_fill(hidden[..., None], _NOTHING).softmax(3)
    return torch.einsum("bhtc,bhtsc->bhts", q.softmax(-1), each) @ v


def causal_efficient_attention_recurrent(
    q: Tensor, k: Tensor, v: Tensor, joint: bool = False, state: Means | None = None, starts: Tensor | None = None
) -> tuple[Tensor, Means]:
    """The equations token by token; takes and gives what `causal_efficient_attention` does."""
    mass, means = empty_means(k, v) if state is None else state
    outputs = []
    for t in range(q.shape[2]):
        if starts is not None:
            mass = mass.masked_fill(starts[:, t, None, None], _NOTHING)
        after = torch.logaddexp(mass, k[:, :, t].to(mass.dtype))
        new = (k[:, :, t] - after).exp()[..., None] @ v[:, :, t, None].to(mass.dtype)
        means = means * (mass - after).exp()[..., None] + new
        mass = after
        logits = q[:, :, t].to(mass.dtype)
        outputs.append(torch.einsum("bhk,bhke->bhe", (logits + mass if joint else logits).softmax(-1), means))
    return torch.stack(outputs, 2).to(v.dtype), Means(mass, means)


def causal_efficient_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    joint: bool = False,
    state: Means | None = None,
    starts: Tensor | None = None,
    chunk: int = CHUNK,
) -> tuple[Tensor, Means]:
    """y [b h t e] of q, k [b h t k] and v [b h t e], and the state after the last token.

    starts [b t]: True at the first token of a document inside a row; nothing before it is read. chunk: a power of two,
    which changes the cost and the rounding alone. Everything is float32 at least, outside autocast; y has v's dtype.
    """
    if chunk < 1 or chunk & (chunk - 1):
        raise ValueError(f"chunk must be a power of two, got {chunk}")
    dtype, t = working_dtype(v), q.shape[2]
    size = min(chunk, 1 << (t - 1).bit_length())
    with torch.autocast(v.device.type, enabled=False):
        before = empty_means(k, v) if state is None else state
        logits, values = chunked(q.to(dtype), size), chunked(v.to(dtype), size)  # b h n c ...
        keys = chunked(k.to(dtype), size, _FILL)
        documents = None if starts is None else Documents(starts, size)
        mass, masses, last = _masses(keys, before.mass, documents)
        weights = (logits + mass if joint else logits).softmax(-1)
        y = _within(weights, keys, values, mass, documents)
        befores, after = _carried_means(keys, values, masses, last, before.means, documents)
        exponents = masses[:, :, :, None] - mass
        if documents is not None:
            exponents = exponents.masked_fill(~documents.open, _NOTHING)
        y = y + (weights * exponents.exp()) @ befores
        return y.flatten(2, 3)[:, :, :t].to(v.dtype), Means(last, after)


def _masses(keys: Tensor, carried: Tensor, documents: Documents | None) -> tuple[Tensor, Tensor, Tensor]:
    """l at each token b h n c k, l before each chunk b h n k (what a chunk cannot read, left as it is), and at the end.

    Inside a chunk by doubling: the right half of each pair of blocks adds what the left half holds at its end.
    """
    mass, half = keys, 1
    while half < keys.shape[3]:
        left, right = _halves(mass, half)
        ends = _hidden(left[..., -1:, :], documents, half, 1)
        mass = torch.stack([left, torch.logaddexp(right, ends)], 4).flatten(3, 5)
        half *= 2
    befores = []
    for index, total in enumerate(mass[:, :, :, -1].unbind(2)):
        befores.append(carried)
        if documents is not None:
            carried = carried.masked_fill(~documents.kept[:, :, index, 0], _NOTHING)
        carried = torch.logaddexp(total, carried)
    before = torch.stack(befores, 2)
    reached = before[:, :, :, None]
    if documents is not None:
        reached = torch.where(documents.open, reached, _NOTHING)
    return torch.logaddexp(mass, reached), before, carried


def _within(weights: Tensor, keys: Tensor, values: Tensor, mass: Tensor, documents: Documents | None) -> Tensor:
    """What each token reads inside its chunk, b h n c e: itself, and block by block what lies left of it."""
    y = (weights * (keys - mass).exp()).sum(-1, keepdim=True) * values
    half = 1
    while half < keys.shape[3]:
        (left_mass, right_mass), (left_keys, _) = _halves(mass, half), _halves(keys, half)
        past = left_mass[..., -1:, :]  # l_r, at the end of the left half
        exponents = _hidden(left_keys - past, documents, half, 0)
        factors = _halves(weights, half)[1] * _hidden(past - right_mass, documents, half, 1).exp()
        read = (factors @ exponents.exp().transpose(-1, -2)) @ _halves(values, half)[0]
        y = y + F.pad(read[:, :, :, :, None], (0, 0, 0, 0, 1, 0)).flatten(3, 5)
        half *= 2
    return y


def _halves(x: Tensor, half: int) -> tuple[Tensor, Tensor]:
    """The left and the right half of each block of 2 `half` tokens of [b h n c k], both b h n m half k."""
    left, right = x.reshape(*x.shape[:3], -1, 2, half, x.shape[-1]).unbind(4)
    return left, right


def _hidden(exponents: Tensor, documents: Documents | None, half: int, side: int) -> Tensor:
    """Exponents of one half of each pair of blocks; minus infinity outside the document at the left half's end."""
    if documents is None:
        return exponents
    sides = _halves(documents.numbers[..., None], half)
    return torch.where(sides[side] == sides[0][..., -1:, :], exponents, _NOTHING)


def _carried_means(
    keys: Tensor, values: Tensor, masses: Tensor, last: Tensor, means: Tensor, documents: Documents | None
) -> tuple[Tensor, Tensor]:
    """M before each chunk, b h n k e, and after the last."""
    afters = torch.cat([masses[:, :, 1:], last[:, :, None]], 2)
    exponents, decays = keys - afters[:, :, :, None], masses - afters
    if documents is not None:
        exponents = exponents.masked_fill(~documents.last, _NOTHING)
        decays = decays.masked_fill(~documents.kept[..., 0], _NOTHING)
    sums = exponents.exp().transpose(-1, -2) @ values
    befores = []
    for own, decay in zip(sums.unbind(2), decays.exp().unbind(2), strict=True):
        befores.append(means)
        means = means * decay[..., None] + own
    return torch.stack(befores, 2), means


def empty_means(k: Tensor, v: Tensor) -> Means:
    """The state before the first token."""
    dtype = working_dtype(v)
    mass = torch.full((*k.shape[:2], k.shape[-1]), _NOTHING, dtype=dtype, device=v.device)
    return Means(mass, torch.zeros(*mass.shape, v.shape[-1], dtype=dtype, device=v.device))
