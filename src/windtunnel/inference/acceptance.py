"""Which tokens of a draft the target accepts (Leviathan et al. 2023, algorithm 1; Chen et al. 2023).

A drafted token x is kept with probability min(1, p(x) / q(x)); the first that is not is replaced by a draw from
norm(max(0, p - q)), and after a whole draft one more token is drawn from the target. What comes out has exactly the
target's distribution, whatever the draft.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from windtunnel.inference.sampling import draw


class Accepted(NamedTuple):
    """How many drafted tokens stay, and the token that follows them."""

    kept: int
    token: int


def accept(drafted: Sequence[int], draft: Tensor, target: Tensor, number: Callable[[int, str], float]) -> Accepted:
    """Judge a draft. draft: q [n v], target: p [n+1 v], the distributions that the tokens are and would be drawn from.

    number: uniform numbers by (place in this round, "accept" or "token").
    """
    for place, token in enumerate(drafted):
        p, q = target[place], draft[place]
        if number(place, "accept") * float(q[token]) >= float(p[token]):
            return Accepted(place, draw(residual(p, q), number(place, "token")))
    return Accepted(len(drafted), draw(target[len(drafted)], number(len(drafted), "token")))


def accept_greedy(drafted: Sequence[int], likeliest: Callable[[int], int]) -> Accepted:
    """`accept` for a target that has all its probability on likeliest(place): a token stays if it is that one."""
    for place, token in enumerate(drafted):
        best = likeliest(place)
        if best != token:
            return Accepted(place, best)
    return Accepted(len(drafted), likeliest(len(drafted)))


def residual(p: Tensor, q: Tensor) -> Tensor:
    """norm(max(0, p - q)) over the vocabulary; p itself where rounding left nothing."""
    rest = (p - q).clamp(min=0)
    total = rest.sum(-1, keepdim=True)
    return torch.where(total > 0, rest / total.clamp(min=torch.finfo(p.dtype).tiny), p)


def acceptance_rate(p: Tensor, q: Tensor) -> Tensor:
    """The probability that a token drafted from q is kept: sum over tokens of min(p, q), which is 1 - TV(p, q)."""
    return torch.minimum(p, q).sum(-1)


def tokens_per_call(rate: float, drafted: int) -> float:
    """Expected tokens of one pass of the target when each drafted token is kept with this rate (Leviathan eq. 1)."""
    return float(drafted + 1) if rate == 1 else (1 - rate ** (drafted + 1)) / (1 - rate)
