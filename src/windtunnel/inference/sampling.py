"""From logits to the next token: the distribution that settings make of them, and a draw that a seed decides.

Everything after the logits is float64, and a draw depends on (seed, index of the token, what it is for) alone, so a
request's text does not depend on the requests that share its batch.
"""

import hashlib
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from windtunnel.errors import WorkError
from windtunnel.spec import Spec

_NOT_NUMBERS = "the model gave logits that are not numbers; the checkpoint is damaged or diverged"


class Sampling(Spec):
    """How the next token is chosen. The steps apply in this order, each to what the one before left.

    repetition_penalty: logits of tokens seen before are divided by it if positive, multiplied if negative (CTRL, Keskar
    et al. 2019, section 4.1); 1 is off. temperature: logits are divided by it; 0 takes the largest, the first among
    equals. top_k: only the k likeliest stay. top_p: the fewest likeliest tokens whose probabilities reach p
    (Holtzman et al. 2020). min_p: tokens with at least min_p times the largest probability (Nguyen et al. 2024).
    seed: of the draws.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float = 1.0
    seed: int = 0

    def validate(self) -> None:
        self.require(
            0 <= self.temperature < math.inf, f"temperature must be 0 (greedy) or more, got {self.temperature}"
        )
        self.require(self.top_k is None or self.top_k >= 1, f"top_k must be at least 1, got {self.top_k}")
        self.require(self.top_p is None or 0 < self.top_p <= 1, f"top_p must be in (0, 1], got {self.top_p}")
        self.require(self.min_p is None or 0 <= self.min_p <= 1, f"min_p must be in [0, 1], got {self.min_p}")
        penalty = self.repetition_penalty
        self.require(0 < penalty < math.inf, f"repetition_penalty must be positive, got {penalty}")
        narrowed = [name for name in ("top_k", "top_p", "min_p") if getattr(self, name) is not None]
        self.require(
            self.temperature > 0 or not narrowed,
            f"temperature 0 takes the likeliest token; {', '.join(narrowed)} cannot change that: leave out one of them",
        )

    @property
    def greedy(self) -> bool:
        """Whether nothing is drawn."""
        return self.temperature == 0


def distribution(logits: Tensor, sampling: Sampling, seen: Sequence[int] = ()) -> Tensor:
    """The probabilities [n v] in float64 that `sampling` makes of logits [n v]; greedy gives one 1 a row.

    seen: the tokens that the repetition penalty applies to, the same for every row. Raises `WorkError` where a row has
    no finite logit or a NaN.
    """
    if not bool(logits.amax(-1).isfinite().all()):  # a NaN is the largest of all
        raise WorkError(_NOT_NUMBERS)
    return _law(logits, sampling, seen)


def _law(logits: Tensor, sampling: Sampling, seen: Sequence[int]) -> Tensor:
    """`distribution` of logits that are numbers."""
    scores = logits.to(torch.float64)
    if sampling.repetition_penalty != 1.0 and len(seen):
        scores = _penalized(scores, torch.tensor(sorted(set(seen)), device=scores.device), sampling.repetition_penalty)
    if sampling.greedy:
        return torch.zeros_like(scores).scatter_(-1, scores.argmax(-1, keepdim=True), 1.0)
    probabilities = (scores / sampling.temperature).softmax(-1)
    if sampling.top_k is not None:
        probabilities = _normalised(_largest(probabilities, sampling.top_k))
    if sampling.top_p is not None and sampling.top_p < 1:
        probabilities = _normalised(_nucleus(probabilities, sampling.top_p))
    if sampling.min_p is not None:
        smallest = sampling.min_p * probabilities.amax(-1, keepdim=True)
        probabilities = _normalised(probabilities.where(probabilities >= smallest, 0.0))
    return probabilities


def likeliest(logits: Tensor, sampling: Sampling, seen: Sequence[int] = ()) -> int:
    """The token that greedy sampling takes from logits [v]: where `distribution` has its 1."""
    if sampling.repetition_penalty != 1.0:
        return int(distribution(logits[None], sampling, seen).argmax())
    largest, token = logits.max(-1)
    if not math.isfinite(float(largest)):  # a NaN is the largest of all
        raise WorkError(_NOT_NUMBERS)
    return int(token)


class Turn(NamedTuple):
    """A row that is to choose its next token: its settings, the tokens before, and how many of them it has made."""

    sampling: Sampling
    seen: Sequence[int]
    generated: int


def choose(logits: Tensor, turns: Sequence[Turn]) -> list[int | None]:
    """The next token of each row of logits [n v], None where they are not numbers.

    The same as `likeliest`, or a `draw` from `distribution`, of each row; rows of equal settings go together.
    """
    alike: dict[tuple[Any, ...], list[int]] = {}
    for row, (sampling, _, _) in enumerate(turns):
        own = row if sampling.repetition_penalty != 1.0 else None
        settings = (sampling.temperature, sampling.top_k, sampling.top_p, sampling.min_p, own)
        alike.setdefault(settings, []).append(row)
    found: list[int | None] = [None] * len(turns)
    for rows in alike.values():
        scores = logits if len(rows) == len(turns) else logits[rows]
        largest, best = scores.max(-1)  # a NaN is the largest of all
        finite = [row for row, size in zip(rows, largest.tolist(), strict=True) if math.isfinite(size)]
        turn = turns[rows[0]]
        if turn.sampling.greedy and turn.sampling.repetition_penalty == 1.0:
            taken = dict(zip(rows, best.tolist(), strict=True))
        elif finite:
            law = _law(scores if len(finite) == len(rows) else logits[finite], turn.sampling, turn.seen)
            numbers = [uniform(turns[row].sampling.seed, turns[row].generated) for row in finite]
            taken = dict(zip(finite, draws(law, numbers), strict=True))
        for row in finite:
            found[row] = taken[row]
    return found


def not_numbers() -> WorkError:
    """What is said of logits that are NaN or infinite."""
    return WorkError(_NOT_NUMBERS)


def uniform(seed: int, index: int, purpose: str = "token") -> float:
    """A number in [0, 1) that depends on these three alone; `index` counts a request's generated tokens."""
    digest = hashlib.sha256(f"{seed}/{index}/{purpose}".encode()).digest()
    return (int.from_bytes(digest[:8], "big") >> 11) / (1 << 53)


def draw(probabilities: Tensor, number: float) -> int:
    """The token at which the cumulated probabilities [v] pass `number`; one of probability 0 is never drawn."""
    return draws(probabilities[None], [number])[0]


def draws(probabilities: Tensor, numbers: Sequence[float]) -> list[int]:
    """`draw` for every row of probabilities [n v] and its number."""
    cumulated = probabilities.cumsum(-1)
    wanted = torch.tensor(numbers, dtype=cumulated.dtype, device=cumulated.device)[:, None] * cumulated[:, -1:]
    tokens = torch.searchsorted(cumulated, wanted, right=True)[:, 0]
    last = probabilities.shape[-1] - 1 - (probabilities > 0).flip(-1).to(torch.uint8).argmax(-1)
    drawn: list[int] = torch.minimum(tokens, last).tolist()
    return drawn


def _penalized(scores: Tensor, seen: Tensor, penalty: float) -> Tensor:
    chosen = scores[:, seen]
    return scores.index_copy(-1, seen, torch.where(chosen > 0, chosen / penalty, chosen * penalty))


def _normalised(weights: Tensor) -> Tensor:
    return weights / weights.sum(-1, keepdim=True)


def _largest(probabilities: Tensor, count: int) -> Tensor:
    """Exactly `count` tokens a row; among equals those with smaller ids."""
    order = probabilities.sort(dim=-1, descending=True, stable=True).indices[..., :count]
    return torch.zeros_like(probabilities).scatter_(-1, order, probabilities.gather(-1, order))


def _nucleus(probabilities: Tensor, share: float) -> Tensor:
    ordered, order = probabilities.sort(dim=-1, descending=True, stable=True)
    before = ordered.cumsum(-1) - ordered
    return torch.zeros_like(probabilities).scatter_(-1, order, ordered.where(before < share, 0.0))
