"""Speculative decoding by enumeration: what it emits has exactly the target's distribution, whatever the draft."""

import itertools
import math

import torch
from torch import Tensor

from windtunnel.inference.acceptance import residual
from windtunnel.selftest.check import Lab, Outcome, worst

VOCAB = 4
ALLOWED = 1e-14
Text = tuple[int, ...]
Laws = dict[Text, Tensor]


def laws(seed: int, peaked: float = 1.0) -> Laws:
    """A distribution over the next token for each context of up to three tokens."""
    draws = torch.Generator().manual_seed(seed)
    contexts = [c for n in range(4) for c in itertools.product(range(VOCAB), repeat=n)]
    scores = {c: peaked * torch.randn(VOCAB, generator=draws, dtype=torch.float64) for c in contexts}
    return {context: score.softmax(-1) for context, score in scores.items()}


def emitted(p: Laws, q: Laws, drafted: int) -> dict[Text, float]:
    """The exact law of what one round emits: every draft and every verdict weighed by its probability."""
    law: dict[Text, float] = {}

    def go(before: Text, reached: float) -> None:
        if len(before) == drafted:
            for token, share in enumerate(p[before].tolist()):
                law[(*before, token)] = reached * share
            return
        kept = [min(1.0, a / b) for a, b in zip(p[before].tolist(), q[before].tolist(), strict=True)]
        rejected = sum(b * (1 - k) for b, k in zip(q[before].tolist(), kept, strict=True))
        for token, share in enumerate(residual(p[before], q[before]).tolist()):
            law[(*before, token)] = law.get((*before, token), 0.0) + reached * rejected * share
        for token, share in enumerate(q[before].tolist()):
            go((*before, token), reached * share * kept[token])

    go((), 1.0)
    return law


def distance(p: Laws, q: Laws, drafted: int) -> float:
    """Total variation between texts of drafted + 1 tokens by one round and the target's own.

    A shorter emission goes on with the target's own next tokens.
    """
    law: dict[Text, float] = {}
    for text, weight in emitted(p, q, drafted).items():
        for rest in itertools.product(range(VOCAB), repeat=drafted + 1 - len(text)):
            tail = math.prod(float(p[(*text, *rest[:place])][token]) for place, token in enumerate(rest))
            law[(*text, *rest)] = law.get((*text, *rest), 0.0) + weight * tail
    found = 0.0
    for text in itertools.product(range(VOCAB), repeat=drafted + 1):
        wanted = math.prod(float(p[text[:place]][token]) for place, token in enumerate(text))
        found += 0.5 * abs(law[text] - wanted)
    return found


def speculation(lab: Lab) -> Outcome:
    """Drafts of one to three tokens from four pairs of laws."""
    pairs = {seed: (laws(seed), laws(100 + seed, peaked=2.0)) for seed in range(4)}
    found = {f"{n} drafted, laws {seed}": distance(*pairs[seed], n) for n in (1, 2, 3) for seed in pairs}
    return worst(found, ALLOWED, " in total variation")
