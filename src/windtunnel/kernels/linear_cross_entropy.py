"""The unembedding and the cross-entropy in one, by chunks of rows, so that the full logits are never stored.

    z = cap(hidden weight^T + bias)        cross-entropy = mean over counted rows of (logsumexp z - z_target)
    z_term = z_loss * mean over counted rows of (logsumexp z)^2         (PaLM, arXiv 2204.02311, section 5)

The gradients are formed in the forward pass, while a chunk's logits are still at hand. Sums are kept in float32
(float64 for float64 input); under autocast the products are taken in its dtype.

Where processes share the vocabulary, each forms the logits of its own part, and of a chunk's rows three numbers are
brought together: the largest logit, the sum of exponentials and the logit of the target (Shoeybi et al. 2019, arXiv
1909.08053, section 3).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from windtunnel.kernels.routing import autocast, no_autocast, working_dtype

_CHUNK_BYTES = 8 << 20  # logits of one chunk: small enough to stay in a CPU's cache
_CHUNK_BYTES_ACCELERATOR = 256 << 20
_FEWEST_ROWS = 256  # fewer would make the products with a large vocabulary inefficient


class Columns(NamedTuple):
    """The part of the vocabulary that this process has, of those that share it: from `first` on.

    most: how many tokens the widest part has. largest, total: the largest of what the processes give, and the sum; the
    same bits everywhere.
    """

    first: int
    most: int
    largest: Callable[[Tensor], Tensor]
    total: Callable[[Tensor], Tensor]

    def own(self, tokens: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """The rows of tokens in a table of `count`, and which of the tokens have one there; others are given any."""
        rows = tokens - self.first
        held = (rows >= 0) & (rows < count)
        return rows.masked_fill(~held, 0), held


class _Head(NamedTuple):
    """What turns hidden states into logits."""

    weight: Tensor  # v d
    bias: Tensor | None  # v
    soft_cap: float | None
    columns: Columns | None = None  # where v are a part of the vocabulary


def _logits(hidden: Tensor, head: _Head, room: Tensor) -> Tensor:
    """Logits of some rows, soft-capped: cap tanh(z / cap); written into room, float32 or wider; n v."""
    same = hidden.dtype == room.dtype
    z = torch.mm(hidden, head.weight.T, out=room) if same else room.copy_(hidden @ head.weight.T)
    if head.bias is not None:
        z += head.bias
    return z if head.soft_cap is None else z.div_(head.soft_cap).tanh_().mul_(head.soft_cap)


def linear_cross_entropy_reference(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    bias: Tensor | None = None,
    soft_cap: float | None = None,
    z_loss: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """The equations, in plain torch, with the full logits."""
    z = F.linear(hidden, weight, bias).to(working_dtype(hidden))
    if soft_cap is not None:
        z = soft_cap * torch.tanh(z / soft_cap)
    counted = targets >= 0
    count = counted.sum().clamp(min=1)
    cross_entropy = F.cross_entropy(z, targets, ignore_index=-1, reduction="sum") / count
    return cross_entropy, z_loss * (z.logsumexp(-1).square() * counted).sum() / count


class _Gradients(NamedTuple):
    """Sums over the chunks, in the working dtype."""

    hidden: Tensor  # n d
    weight: Tensor  # v d
    bias: Tensor | None  # v


def _rows(n: int, vocabulary: int, device: torch.device) -> int:
    budget = _CHUNK_BYTES if device.type in ("cpu", "meta") else _CHUNK_BYTES_ACCELERATOR
    return max(1, min(n, max(_FEWEST_ROWS, budget // (4 * vocabulary))))


class _Targets(NamedTuple):
    """Of some rows, [n]: the column of the target among those at hand, whether it is there, and whether it counts."""

    column: Tensor
    here: Tensor
    counted: Tensor

    @classmethod
    def of(cls, targets: Tensor, head: _Head) -> "_Targets":
        counted = targets >= 0
        if head.columns is None:
            return cls(targets.clamp(min=0), counted, counted)
        column, here = head.columns.own(targets, len(head.weight))
        return cls(column, here & counted, counted)


class _Chunk(NamedTuple):
    """What some rows came to; a row without a target has zeros in the last two."""

    probabilities: Tensor  # n v
    cross_entropy: Tensor  # n
    log_sum: Tensor  # n


def _chunk(z: Tensor, targets: _Targets, room: Tensor, columns: Columns | None) -> _Chunk:
    """One fused softmax instead of log-softmax and exp: logsumexp z = max z - log max softmax(z).

    room: what the probabilities are written into, which may be z itself.
    """
    largest, chosen = z.amax(-1), z.gather(-1, targets.column.unsqueeze(-1)).squeeze(-1)
    if columns is None:
        probabilities = torch.softmax(z, -1, out=room)
        log_sum = largest - probabilities.amax(-1).log_()
    else:
        largest = columns.largest(largest)
        probabilities = torch.sub(z, largest.unsqueeze(-1), out=room).exp_()
        sums, chosen = columns.total(torch.stack((probabilities.sum(-1), chosen * targets.here))).unbind()
        probabilities.div_(sums.unsqueeze(-1))
        log_sum = largest + sums.log()
    cross_entropy = (log_sum - chosen).masked_fill_(~targets.counted, 0.0)
    return _Chunk(probabilities, cross_entropy, log_sum.masked_fill_(~targets.counted, 0.0))


def _chunk_gradient(chunk: _Chunk, targets: _Targets, shares: Tensor) -> Tensor:
    """The gradient by capped logits, in place of the probabilities; shares weighs both terms, z_loss included; n v."""
    counted, here = targets.counted.to(shares.dtype), targets.here.to(shares.dtype)
    gradient = chunk.probabilities.mul_((counted * (shares[0] + 2 * shares[1] * chunk.log_sum)).unsqueeze(-1))
    return gradient.scatter_add_(-1, targets.column.unsqueeze(-1), (-shares[0] * here).unsqueeze(-1))


def _walk(
    hidden: Tensor, head: _Head, targets: Tensor, shares: Tensor | None
) -> tuple[Tensor, Tensor, _Gradients | None]:
    """Cross-entropy and log-sum-exp of every row; with shares (see _chunk_gradient) the gradients too."""
    wide, n = working_dtype(hidden), hidden.shape[0]
    losses, log_sums = (torch.empty(n, dtype=wide, device=hidden.device) for _ in range(2))
    gradients = None
    if shares is not None:
        zeros = [torch.zeros_like(x, dtype=wide) if x is not None else None for x in (head.weight, head.bias)]
        gradients = _Gradients(torch.empty_like(hidden, dtype=wide), zeros[0], zeros[1])  # type: ignore[arg-type]
    widest = head.weight.shape[0] if head.columns is None else head.columns.most  # all take the same steps
    step = _rows(n, widest, hidden.device)
    logits = torch.empty(step, head.weight.shape[0], dtype=wide, device=hidden.device)  # one room for every chunk's
    probabilities = logits if head.soft_cap is None else torch.empty_like(logits)
    for start in range(0, n, step):
        rows, count = slice(start, start + step), min(step, n - start)
        z = _logits(hidden[rows], head, logits[:count])
        wanted = _Targets.of(targets[rows], head)
        chunk = _chunk(z, wanted, probabilities[:count], head.columns)
        losses[rows], log_sums[rows] = chunk.cross_entropy, chunk.log_sum
        if gradients is not None and shares is not None:
            dz = _chunk_gradient(chunk, wanted, shares)
            if head.soft_cap is not None:
                dz.mul_(z.div_(head.soft_cap).square_().neg_().add_(1.0))
            _accumulate(gradients, dz, hidden, rows, head.weight)
    return losses, log_sums, gradients


def _accumulate(gradients: _Gradients, dz: Tensor, hidden: Tensor, rows: slice, weight: Tensor) -> None:
    if gradients.bias is not None:
        gradients.bias.add_(dz.sum(0))
    if hidden.dtype == dz.dtype:
        torch.mm(dz, weight, out=gradients.hidden[rows])
        gradients.weight.addmm_(dz.T, hidden[rows])
        return
    narrow = dz.to(hidden.dtype)
    gradients.hidden[rows] = narrow @ weight
    gradients.weight.add_(narrow.T @ hidden[rows])


class _LinearCrossEntropy(torch.autograd.Function):
    """Forms the gradient of the plain sum of both terms; other weights of the two are formed again when asked for."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        soft_cap: float | None,
        z_loss: float,
        columns: Columns | None,
    ) -> tuple[Tensor, Tensor]:
        counts = (targets >= 0).sum().clamp(min=1).to(working_dtype(hidden))
        shares = torch.stack((1 / counts, z_loss / counts))
        head = _Head(weight, bias, soft_cap, columns)
        losses, log_sums, gradients = _walk(hidden, head, targets, shares)
        assert gradients is not None
        ctx.z_loss, ctx.soft_cap, ctx.columns = z_loss, soft_cap, columns
        ctx.formed = gradients  # not saved: handed over by the first backward pass, which may then write into them
        ctx.save_for_backward(hidden, weight, bias, targets, shares)
        return losses.sum() * shares[0], log_sums.square().sum() * shares[1]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dloss: Tensor, dz_term: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, targets, shares = ctx.saved_tensors
        formed, ctx.formed = ctx.formed, None
        if formed is None or (ctx.z_loss and not torch.equal(dloss, dz_term)):
            formed = None  # its memory is needed for what is formed again
            head = _Head(weight, bias, ctx.soft_cap, ctx.columns)
            _, _, formed = _walk(hidden, head, targets, shares * torch.stack((dloss, dz_term)))
            assert formed is not None
        else:
            for gradient in formed:
                if gradient is not None:
                    gradient.mul_(dloss)
        if ctx.columns is not None:
            formed = formed._replace(hidden=ctx.columns.total(formed.hidden))
        inputs = (hidden, weight, bias)
        given = [None if x is None else gradient.to(x.dtype) for x, gradient in zip(inputs, formed, strict=True)]
        return *given, None, None, None, None


def _counted(hidden: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """The rows that have a target, where they are few, as a task's answers are. A GPU would have to wait for them."""
    if targets.device.type != "cpu":
        return hidden, targets
    rows = (targets >= 0).nonzero().squeeze(1)
    return (hidden[rows], targets[rows]) if 0 < len(rows) <= len(targets) // 2 else (hidden, targets)


def linear_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    bias: Tensor | None = None,
    soft_cap: float | None = None,
    z_loss: float = 0.0,
    columns: Columns | None = None,
) -> tuple[Tensor, Tensor]:
    """Mean cross-entropy in nats over the rows whose target is not -1, and the z-loss term.

    hidden [n d], weight [v d], targets [n], bias [v]. No counted row gives zeros. columns: which part of the vocabulary
    weight and bias are, where processes share it; both terms and the gradient of hidden are those of the whole.
    """
    hidden, targets = _counted(hidden, targets)
    hidden, weight = autocast(hidden), autocast(weight)
    with no_autocast(hidden.device):
        if torch.is_grad_enabled():
            return _LinearCrossEntropy.apply(hidden, weight, bias, targets, soft_cap, z_loss, columns)  # type: ignore[no-any-return, no-untyped-call]
        losses, log_sums, _ = _walk(hidden, _Head(weight, bias, soft_cap, columns), targets, None)
        count = (targets >= 0).sum().clamp(min=1)
        return losses.sum() / count, z_loss * log_sums.square().sum() / count


@torch.no_grad()
def linear_token_losses(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    bias: Tensor | None = None,
    soft_cap: float | None = None,
    columns: Columns | None = None,
) -> Tensor:
    """Cross-entropy of every row in nats, 0 where the target is -1; no gradient; n. columns: as above."""
    hidden, weight = autocast(hidden), autocast(weight)
    with no_autocast(hidden.device):
        return _walk(hidden, _Head(weight, bias, soft_cap, columns), targets, None)[0]
