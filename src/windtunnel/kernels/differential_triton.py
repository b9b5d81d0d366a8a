"""Differential attention in one pass, in Triton, for CUDA (Ye et al. 2024, arXiv 2410.05258, eq. 1).

Both maps of a head are walked together over the keys: the values are read once and both online softmaxes (Milakov and
Gimelshein 2018, arXiv 1805.02867) run on chip. Their running maxima differ, so each has its own accumulator; they are
subtracted in float32 at the end. The backward pass forms both maps again from their two log-sum-exps. With y the
output, O2 the second map's own output, D = A1 - lambda A2 and P = dy v^T, formed once for both maps:

    dv = D^T dy, dS1 = A1 (P - rowsum(dy O1)), dS2 = -lambda A2 (P - rowsum(dy O2)), dlambda = -sum(dy O2)

Needs `triton`, which comes with torch's CUDA wheels; imported only where it is used. Not yet run on a GPU.
"""
# mypy: disable-error-code="no-untyped-def, untyped-decorator, no-untyped-call"

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

_LOG2E = 1.4426950408889634


@triton.jit
def _rows(base, position, feature, length, WIDTH: tl.constexpr):
    """A tile of one head [length, WIDTH], zeros outside; position n, feature m."""
    inside = (position < length)[:, None] & (feature < WIDTH)[None, :]
    return tl.load(base + position[:, None] * WIDTH + feature[None, :], mask=inside, other=0.0)


@triton.jit
def _seen(queries, keys, length, documents, DOCUMENTS: tl.constexpr):
    """Which keys each query may see: its own and earlier ones, of its document."""
    seen = (keys[None, :] <= queries[:, None]) & (keys < length)[None, :] & (queries < length)[:, None]
    if DOCUMENTS:
        own = tl.load(documents + queries, mask=queries < length, other=-1)
        other = tl.load(documents + keys, mask=keys < length, other=-2)
        seen = seen & (own[:, None] == other[None, :])
    return seen


@triton.jit
def _online(q, k, v, seen, scale, largest, total, summed, PRECISION: tl.constexpr):
    """One step of an online softmax in base 2: the new maxima, sums and weighted values."""
    scores = tl.where(seen, tl.dot(q, tl.trans(k), input_precision=PRECISION) * scale, float("-inf"))
    grown = tl.maximum(largest, tl.max(scores, 1))
    anchor = tl.where(grown == float("-inf"), 0.0, grown)  # a row that has seen nothing yet
    shrink = tl.exp2(largest - anchor)
    weights = tl.exp2(scores - anchor[:, None])
    total = total * shrink + tl.sum(weights, 1)
    summed = summed * shrink[:, None] + tl.dot(weights.to(v.dtype), v, input_precision=PRECISION)
    return grown, total, summed


@triton.jit
def _forward(
    q, k, v, lam, documents, y, second, sums, heads, groups, length, scale,
    D: tl.constexpr, E: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_E: tl.constexpr,
    QUERIES: tl.constexpr, KEYS: tl.constexpr, DOCUMENTS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    batch, head = (tl.program_id(1) // heads).to(tl.int64), tl.program_id(1) % heads
    group = head // (heads // groups)
    feature, value = tl.arange(0, BLOCK_D), tl.arange(0, BLOCK_E)
    queries = tl.program_id(0) * QUERIES + tl.arange(0, QUERIES)
    query_head = q + (batch * heads + head) * 2 * length * D
    key_head = k + (batch * groups + group) * 2 * length * D
    value_head = v + (batch * groups + group) * length * E
    own_documents = documents + batch * length
    q1 = _rows(query_head, queries, feature, length, D)
    q2 = _rows(query_head + length * D, queries, feature, length, D)
    largest1 = tl.full([QUERIES], float("-inf"), tl.float32)
    largest2 = tl.full([QUERIES], float("-inf"), tl.float32)
    total1, total2 = tl.zeros([QUERIES], tl.float32), tl.zeros([QUERIES], tl.float32)
    sum1, sum2 = tl.zeros([QUERIES, BLOCK_E], tl.float32), tl.zeros([QUERIES, BLOCK_E], tl.float32)
    last = tl.minimum((tl.program_id(0) + 1) * QUERIES, length)
    for start in range(0, last, KEYS):
        keys = start + tl.arange(0, KEYS)
        seen = _seen(queries, keys, length, own_documents, DOCUMENTS)
        values = _rows(value_head, keys, value, length, E)
        k1 = _rows(key_head, keys, feature, length, D)
        largest1, total1, sum1 = _online(q1, k1, values, seen, scale, largest1, total1, sum1, PRECISION)
        k2 = _rows(key_head + length * D, keys, feature, length, D)
        largest2, total2, sum2 = _online(q2, k2, values, seen, scale, largest2, total2, sum2, PRECISION)
    inside = queries < length
    total1, total2 = tl.where(inside, total1, 1.0), tl.where(inside, total2, 1.0)
    out2 = sum2 / total2[:, None]
    out = sum1 / total1[:, None] - tl.load(lam) * out2
    at = (batch * heads + head) * length + queries
    kept = inside[:, None] & (value < E)[None, :]
    tl.store(y + at[:, None] * E + value[None, :], out.to(y.dtype.element_ty), mask=kept)
    tl.store(second + at[:, None] * E + value[None, :], out2.to(second.dtype.element_ty), mask=kept)
    row = (batch * heads + head) * 2 * length + queries
    tl.store(sums + row, largest1 + tl.log2(total1), mask=inside)
    tl.store(sums + row + length, largest2 + tl.log2(total2), mask=inside)


@triton.jit
def _weights(q, k, seen, scale, log_sum, PRECISION: tl.constexpr):
    """A block of a map again, from its log-sum-exps in base 2."""
    scores = tl.dot(q, tl.trans(k), input_precision=PRECISION) * scale
    return tl.where(seen, tl.exp2(scores - log_sum[:, None]), 0.0)


@triton.jit
def _by_queries(
    q, k, v, lam, documents, dy, deltas, sums, dq, heads, groups, length, scale, natural,
    D: tl.constexpr, E: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_E: tl.constexpr,
    QUERIES: tl.constexpr, KEYS: tl.constexpr, DOCUMENTS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    batch, head = (tl.program_id(1) // heads).to(tl.int64), tl.program_id(1) % heads
    group = head // (heads // groups)
    feature, value = tl.arange(0, BLOCK_D), tl.arange(0, BLOCK_E)
    queries = tl.program_id(0) * QUERIES + tl.arange(0, QUERIES)
    inside = queries < length
    query_head = (batch * heads + head) * 2 * length * D
    key_head = k + (batch * groups + group) * 2 * length * D
    value_head = v + (batch * groups + group) * length * E
    own_documents = documents + batch * length
    row = (batch * heads + head) * 2 * length + queries
    q1 = _rows(q + query_head, queries, feature, length, D)
    q2 = _rows(q + query_head + length * D, queries, feature, length, D)
    gradient = _rows(dy + (batch * heads + head) * length * E, queries, value, length, E)
    sum1, sum2 = tl.load(sums + row, mask=inside, other=0.0), tl.load(sums + row + length, mask=inside, other=0.0)
    delta1, delta2 = (
        tl.load(deltas + row, mask=inside, other=0.0),
        tl.load(deltas + row + length, mask=inside, other=0.0),
    )
    factor = tl.load(lam)
    dq1, dq2 = tl.zeros([QUERIES, BLOCK_D], tl.float32), tl.zeros([QUERIES, BLOCK_D], tl.float32)
    last = tl.minimum((tl.program_id(0) + 1) * QUERIES, length)
    for start in range(0, last, KEYS):
        keys = start + tl.arange(0, KEYS)
        seen = _seen(queries, keys, length, own_documents, DOCUMENTS)
        values = _rows(value_head, keys, value, length, E)
        product = tl.dot(gradient, tl.trans(values), input_precision=PRECISION)
        k1 = _rows(key_head, keys, feature, length, D)
        scores1 = _weights(q1, k1, seen, scale, sum1, PRECISION) * (product - delta1[:, None])
        dq1 += tl.dot(scores1.to(k1.dtype), k1, input_precision=PRECISION)
        k2 = _rows(key_head + length * D, keys, feature, length, D)
        scores2 = -factor * _weights(q2, k2, seen, scale, sum2, PRECISION) * (product - delta2[:, None])
        dq2 += tl.dot(scores2.to(k2.dtype), k2, input_precision=PRECISION)
    at = dq + query_head + queries[:, None] * D + feature[None, :]
    kept = inside[:, None] & (feature < D)[None, :]
    tl.store(at, (dq1 * natural).to(dq.dtype.element_ty), mask=kept)
    tl.store(at + length * D, (dq2 * natural).to(dq.dtype.element_ty), mask=kept)


@triton.jit
def _by_keys(
    q, k, v, lam, documents, dy, deltas, sums, dk, dv, heads, groups, length, scale, natural,
    D: tl.constexpr, E: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_E: tl.constexpr,
    QUERIES: tl.constexpr, KEYS: tl.constexpr, DOCUMENTS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    batch, group = (tl.program_id(1) // groups).to(tl.int64), tl.program_id(1) % groups
    repeats = heads // groups
    feature, value = tl.arange(0, BLOCK_D), tl.arange(0, BLOCK_E)
    keys = tl.program_id(0) * KEYS + tl.arange(0, KEYS)
    key_head = (batch * groups + group) * 2 * length * D
    value_head = (batch * groups + group) * length * E
    own_documents = documents + batch * length
    k1 = _rows(k + key_head, keys, feature, length, D)
    k2 = _rows(k + key_head + length * D, keys, feature, length, D)
    values = _rows(v + value_head, keys, value, length, E)
    factor = tl.load(lam)
    dk1, dk2 = tl.zeros([KEYS, BLOCK_D], tl.float32), tl.zeros([KEYS, BLOCK_D], tl.float32)
    dvalues = tl.zeros([KEYS, BLOCK_E], tl.float32)
    first = (tl.program_id(0) * KEYS // QUERIES) * QUERIES  # no earlier query sees any of these keys
    for repeat in range(repeats):
        head = group * repeats + repeat
        query_head = q + (batch * heads + head) * 2 * length * D
        gradient_head = dy + (batch * heads + head) * length * E
        for start in range(first, length, QUERIES):
            queries = start + tl.arange(0, QUERIES)
            inside = queries < length
            row = (batch * heads + head) * 2 * length + queries
            seen = _seen(queries, keys, length, own_documents, DOCUMENTS)
            gradient = _rows(gradient_head, queries, value, length, E)
            product = tl.dot(gradient, tl.trans(values), input_precision=PRECISION)
            q1 = _rows(query_head, queries, feature, length, D)
            sum1, delta1 = tl.load(sums + row, mask=inside, other=0.0), tl.load(deltas + row, mask=inside, other=0.0)
            map1 = _weights(q1, k1, seen, scale, sum1, PRECISION)
            scores1 = map1 * (product - delta1[:, None])
            dk1 += tl.dot(tl.trans(scores1.to(q1.dtype)), q1, input_precision=PRECISION)
            q2 = _rows(query_head + length * D, queries, feature, length, D)
            sum2 = tl.load(sums + row + length, mask=inside, other=0.0)
            delta2 = tl.load(deltas + row + length, mask=inside, other=0.0)
            map2 = factor * _weights(q2, k2, seen, scale, sum2, PRECISION)
            scores2 = -map2 * (product - delta2[:, None])
            dk2 += tl.dot(tl.trans(scores2.to(q2.dtype)), q2, input_precision=PRECISION)
            difference = (map1 - map2).to(gradient.dtype)
            dvalues += tl.dot(tl.trans(difference), gradient, input_precision=PRECISION)
    inside = keys < length
    at = dk + key_head + keys[:, None] * D + feature[None, :]
    kept = inside[:, None] & (feature < D)[None, :]
    tl.store(at, (dk1 * natural).to(dk.dtype.element_ty), mask=kept)
    tl.store(at + length * D, (dk2 * natural).to(dk.dtype.element_ty), mask=kept)
    at = dv + value_head + keys[:, None] * E + value[None, :]
    tl.store(at, dvalues.to(dv.dtype.element_ty), mask=inside[:, None] & (value < E)[None, :])


class _Fused(torch.autograd.Function):
    """The three kernels; what they share besides the tensors is in `_settings`."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, lam: Tensor, scale: float, documents: Any) -> Tensor:
        batch, heads, groups, length = q.shape[0], q.shape[1] // 2, v.shape[1], q.shape[2]
        y = q.new_empty(batch, heads, length, v.shape[-1])
        second, sums = torch.empty_like(y), q.new_empty(batch, heads, 2, length, dtype=torch.float32)
        settings = _settings(q, v, documents is not None)
        grid = (triton.cdiv(length, settings["QUERIES"]), batch * heads)
        read = q if documents is None else documents
        _forward[grid](q, k, v, lam, read, y, second, sums, heads, groups, length, scale * _LOG2E, **settings)
        ctx.scale = scale
        ctx.save_for_backward(q, k, v, lam, documents, y, second, sums)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, lam, documents, y, second, sums = ctx.saved_tensors
        batch, heads, groups, length = q.shape[0], q.shape[1] // 2, v.shape[1], q.shape[2]
        dy = dy.contiguous()
        wide = dy.float()
        of_second = (wide * second.float()).sum(-1)  # b h t
        of_first = (wide * y.float()).sum(-1) + lam * of_second  # O1 = y + lambda O2
        deltas = torch.stack([of_first, of_second], 2)
        dq, dk, dv = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
        settings = _settings(q, v, documents is not None)
        read = q if documents is None else documents
        given = (q, k, v, lam, read, dy, deltas, sums)
        rest = (heads, groups, length, ctx.scale * _LOG2E, ctx.scale)
        _by_queries[(triton.cdiv(length, settings["QUERIES"]), batch * heads)](*given, dq, *rest, **settings)
        _by_keys[(triton.cdiv(length, settings["KEYS"]), batch * groups)](*given, dk, dv, *rest, **settings)
        return dq, dk, dv, -of_second.sum().to(lam.dtype), None, None


def _settings(q: Tensor, v: Tensor, documents: bool) -> dict[str, Any]:
    """Sizes of the tiles: at least 16 for tensor cores, fewer rows where the values are wide."""
    width, value_width = q.shape[-1], v.shape[-1]
    rows = 64 if value_width <= 128 else 32
    precise = q.dtype == torch.float32 and torch.get_float32_matmul_precision() == "highest"
    return {
        "D": width,
        "E": value_width,
        "BLOCK_D": max(16, triton.next_power_of_2(width)),
        "BLOCK_E": max(16, triton.next_power_of_2(value_width)),
        "QUERIES": rows,
        "KEYS": rows,
        "DOCUMENTS": documents,
        "PRECISION": "ieee" if precise else "tf32",
        "num_warps": 4 if value_width <= 128 else 8,
    }


def attention(q: Tensor, k: Tensor, v: Tensor, lam: Tensor, scale: float, documents: Tensor | None) -> Tensor:
    """Causal differential attention of q [b 2h t d] over k [b 2g t d] and v [b g t e] of one dtype; b h t e."""
    documents = None if documents is None else documents.contiguous()
    lam = lam.to(torch.float32)
    y: Tensor = _Fused.apply(q.contiguous(), k.contiguous(), v.contiguous(), lam, scale, documents)
    return y
