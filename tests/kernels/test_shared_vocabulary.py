"""The loss of a vocabulary that processes share, with threads in their place, against full logits."""

import importlib
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.proof import Proof
from windtunnel.kernels import linear_cross_entropy, linear_cross_entropy_reference
from windtunnel.kernels.linear_cross_entropy import Columns, linear_token_losses

EXACT = 1e-13
ROWS, WIDTH = 23, 5


class Group:
    """Threads that bring numbers together: each gives its own and has the result."""

    def __init__(self, size: int) -> None:
        self.given: list[Any] = [None] * size
        self.barrier = threading.Barrier(size, timeout=60)

    def columns(self, index: int, vocab: int) -> Columns:
        most = -(-vocab // len(self.given))
        return Columns(index * most, most, self._by(index, torch.amax), self._by(index, torch.sum))

    def _by(self, index: int, reduce: Callable[..., Tensor]) -> Callable[[Tensor], Tensor]:
        def together(values: Tensor) -> Tensor:
            self.given[index] = values.detach().clone()
            self.barrier.wait()
            result = reduce(torch.stack(self.given), 0)
            self.barrier.wait()
            return result

        return together


@pytest.mark.parametrize("soft_cap", [None, 0.7])
@pytest.mark.parametrize("weights", [(1.0, 1.0), (0.5, 2.0)])  # unequal ones form the gradients again
@pytest.mark.parametrize(("vocab", "parts"), [(11, 1), (12, 2), (11, 2), (11, 4)])
def test_parts_of_a_vocabulary_give_the_loss_of_the_whole(
    vocab: int,
    parts: int,
    weights: tuple[float, float],
    soft_cap: float | None,
    proof: Proof,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(importlib.import_module(linear_cross_entropy.__module__), "_rows", lambda n, most, device: most)
    draw = torch.Generator().manual_seed(vocab + parts)
    hidden, table, bias = (
        torch.randn(*shape, generator=draw, dtype=torch.float64) for shape in ((ROWS, WIDTH), (vocab, WIDTH), (vocab,))
    )
    targets = torch.randint(-1, vocab, (ROWS,), generator=draw)
    group = Group(parts)

    def of(index: int) -> tuple[Any, ...]:
        columns = group.columns(index, vocab)
        own = slice(columns.first, columns.first + columns.most)
        inputs = [each.clone().requires_grad_() for each in (hidden, table[own], bias[own])]
        terms = linear_cross_entropy(*inputs[:2], targets, inputs[2], soft_cap, 0.1, columns)
        sum(weight * term for weight, term in zip(weights, terms, strict=True)).backward()  # type: ignore[union-attr]
        losses = linear_token_losses(hidden, table[own], targets, bias[own], soft_cap, columns)
        return [term.detach() for term in terms], [each.grad for each in inputs], losses

    with ThreadPoolExecutor(parts) as pool:
        found = list(pool.map(of, range(parts)))
    whole = [each.clone().requires_grad_() for each in (hidden, table, bias)]
    expected = linear_cross_entropy_reference(*whole[:2], targets, whole[2], soft_cap, 0.1)
    sum(weight * term for weight, term in zip(weights, expected, strict=True)).backward()  # type: ignore[union-attr]
    expected = tuple(term.detach() for term in expected)
    apart, steep = 0.0, 0.0
    for terms, gradients, losses in found:
        apart = max(apart, *(float((ours - theirs).abs()) for ours, theirs in zip(terms, expected, strict=True)))
        apart = max(apart, float((losses.sum() / (targets >= 0).sum() - expected[0]).abs()))
        steep = max(steep, float((gradients[0] - whole[0].grad).abs().max()))
    for place, parameter in enumerate(whole[1:], 1):
        joined = torch.cat([gradients[place] for _, gradients, _ in found])
        steep = max(steep, float((joined - parameter.grad).abs().max()))
    assert max(apart, steep) < EXACT
    if (vocab, parts, soft_cap) == (11, 4, 0.7):
        proof("loss of a vocabulary in four parts", "full logits", values=apart, gradients=steep)
