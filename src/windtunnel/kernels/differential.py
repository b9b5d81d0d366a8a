"""Differential attention (Ye et al. 2024, arXiv 2410.05258, eq. 1): the difference of two attention maps.

    y_i = (A1_i - lambda A2_i) v_i,    A1_i = softmax(scale q_2i k_2i^T),    A2_i = softmax(scale q_2i+1 k_2i+1^T)

The sub-heads of a pair are neighbours. Under grouped keys the pair is split before the grouping, as in the paper's
flash variants: sub-head 2i + s reads key sub-head 2 (i // n) + s, with n = h / g.
"""

import importlib
import importlib.util
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from windtunnel.kernels import blocked
from windtunnel.kernels.attention import attention, attention_maps, attention_reference, attention_scores


def differential_scores(q: Tensor, k: Tensor, scale: float) -> Tensor:
    """The logits of both maps of every pair, the first maps before the second; b 2h t s."""
    return torch.cat([attention_scores(q[:, i::2], k[:, i::2], scale) for i in (0, 1)], 1)


def differential_maps(
    q: Tensor, k: Tensor, lam: Tensor, scale: float, mask: Tensor | None = None, causal: bool = False
) -> Tensor:
    """A1 - lambda A2 of every head, for measurements: rows sum to 1 - lambda, entries may be negative; b h t s."""
    first, second = (attention_maps(q[:, i::2], k[:, i::2], scale, mask, causal) for i in (0, 1))
    return first - lam.to(first.dtype) * second


def differential_attention_reference(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    lam: Tensor,
    scale: float,
    mask: Tensor | None = None,
    causal: bool = False,
    documents: Tensor | None = None,
) -> Tensor:
    """The equation, in plain torch: each map over its own sub-heads, subtracted after the values."""
    mask = _inside(documents, mask)
    first = attention_reference(q[:, 0::2], k[:, 0::2], v, scale, mask, causal)
    second = attention_reference(q[:, 1::2], k[:, 1::2], v, scale, mask, causal)
    return first - lam * second


class _BlockedDifferential(torch.autograd.Function):
    """The gradients of the paper's maps, with D = A1 - lambda A2 and P = dy v^T formed once for both:

    dv = D^T dy, dlambda = -sum(P A2), dS1 = A1 (P - rowsum(A1 P)), dS2 = -lambda A2 (P - rowsum(A2 P)).

    A block of queries meets all of its keys at once, so that a whole row of both maps is at hand: they are subtracted
    before the values, 8 t² d operations where two accumulators of an online softmax need 12. Up to `blocked.LONGEST`
    the maps are kept; beyond, no more than one block of them ever exists, and the backward pass forms it again.
    """

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, lam: Tensor, scale: float, mask: Tensor | None, documents: Any
    ) -> Tensor:
        sizes = blocked.plan(q.shape[0], q.shape[1] // 2, v.shape[1], q.shape[2], mask)
        sizes = sizes._replace(documents=documents)
        kept = sizes.length <= blocked.LONGEST
        queries = torch.cat([blocked.rows(q[:, i::2], sizes.groups) for i in (0, 1)]).mul_(scale)  # (2 b g) (t n) d
        keys = torch.cat([k[:, i::2].flatten(0, 1) for i in (0, 1)])  # (2 b g) s d
        values, factor = v.flatten(0, 1), float(lam)
        y, y_rows = blocked.empty_heads(q, sizes, v.shape[-1])
        maps = []
        for start, end, block in blocked.blocks(sizes):
            weights = blocked.block_weights(queries[:, block], keys, sizes, start, end)
            difference = _difference(weights, factor)
            y_rows[:, :, start:end] = torch.bmm(difference, values[:, :end]).view_as(y_rows[:, :, start:end])
            if kept:
                maps.append(weights)
        ctx.scale, ctx.factor = scale, factor
        ctx.sizes = sizes._replace(mask=None, documents=None) if kept else sizes
        ctx.save_for_backward(lam, queries, keys, values, *maps)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        lam, queries, keys, values, *maps = ctx.saved_tensors
        sizes: blocked.Plan = ctx.sizes
        dy, dlam = blocked.rows(dy, sizes.groups), torch.zeros_like(lam)
        dq = dy.new_empty(queries.shape)
        dk, dv = blocked.KeyValueGradients(), blocked.KeyValueGradients()
        for start, end, block in reversed(list(blocked.blocks(sizes))):
            weights = maps.pop() if maps else blocked.block_weights(queries[:, block], keys, sizes, start, end)
            dv.add(torch.bmm(_difference(weights, ctx.factor).transpose(1, 2), dy[:, block]))
            product = torch.bmm(dy[:, block], values[:, :end].transpose(1, 2))
            dlam -= torch.dot(product.flatten(), weights[len(weights) // 2 :].flatten())
            dscores = _map_gradients(product, weights, ctx.factor)
            dq[:, block] = torch.bmm(dscores, keys[:, :end])
            dk.add(torch.bmm(dscores.transpose(1, 2), queries[:, block]))
        return (
            _paired(dq.mul_(ctx.scale), sizes),
            _paired(dk.whole(), sizes._replace(repeats=1)),
            dv.heads(sizes.batch),
            dlam,
            None,
            None,
            None,
        )


def _difference(weights: Tensor, factor: float) -> Tensor:
    """A1 - lambda A2 of both maps stacked on the first axis."""
    first, second = weights.chunk(2)
    return torch.sub(first, second, alpha=factor)


def _map_gradients(product: Tensor, weights: Tensor, factor: float) -> Tensor:
    """The gradient by the scores of both maps, stacked on the first axis."""
    dscores = torch.empty_like(weights)
    for gradient, weight in zip(dscores.chunk(2), weights.chunk(2), strict=True):
        torch._softmax_backward_data(product, weight, -1, weight.dtype, grad_input=gradient)
    dscores.chunk(2)[1].mul_(-factor)
    return dscores


def _paired(x: Tensor, sizes: blocked.Plan) -> Tensor:
    """[(2 b g) (t n) d] to [b (g n 2) t d]."""
    return x.view(2, sizes.batch, sizes.groups, -1, sizes.repeats, x.shape[-1]).permute(1, 2, 4, 0, 3, 5).flatten(1, 3)


def _inside(documents: Tensor | None, mask: Tensor | None) -> Tensor | None:
    """The mask, and that of documents, b 1 t s."""
    if documents is None:
        return mask
    own = (documents[:, :, None] == documents[:, None, :]).unsqueeze(1)
    return own if mask is None else own & mask


def _fits_triton(q: Tensor, k: Tensor, v: Tensor) -> bool:
    """Whether the fused kernel takes these; a compiler sees more in SDPA."""
    known = q.dtype == k.dtype == v.dtype and q.dtype in (torch.float32, torch.bfloat16, torch.float16)
    return q.is_cuda and known and not torch.compiler.is_compiling() and importlib.util.find_spec("triton") is not None


def differential_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    lam: Tensor,
    scale: float,
    mask: Tensor | None = None,
    causal: bool = False,
    documents: Tensor | None = None,
) -> Tensor:
    """Differential attention of q [b 2h t d] over k [b 2g s d] and v [b g s e] with a scalar lam; b h t e.

    documents [b t]: ids, t = s; a query sees its own alone. Causal training on a CPU goes by blocks, on CUDA by one
    fused kernel. Elsewhere two SDPA calls, subtracted in float32 or wider: two nearly equal bfloat16 outputs would lose
    their difference.
    """
    square = causal and 1 < q.shape[2] == k.shape[2]
    if square and blocked.trains_on_a_cpu(q, k, v):
        return _BlockedDifferential.apply(q, k, v, lam, scale, mask, documents)  # type: ignore[no-any-return, no-untyped-call]
    if square and mask is None and _fits_triton(q, k, v):
        fused = importlib.import_module("windtunnel.kernels.differential_triton")
        return fused.attention(q, k, v, lam, scale, documents)  # type: ignore[no-any-return]
    mask = _inside(documents, mask)
    first = attention(q[:, 0::2], k[:, 0::2], v, scale, mask, causal)
    second = attention(q[:, 1::2], k[:, 1::2], v, scale, mask, causal)
    wide = torch.promote_types(first.dtype, torch.float32)
    return (first.to(wide) - lam.to(wide) * second.to(wide)).to(first.dtype)
