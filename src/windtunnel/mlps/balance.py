"""What keeps experts busy: balance losses, expert capacity, and the figures of load that training logs.

n tokens, e experts, c choices of a token. A choice of -1 is none.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

_NOTHING = 1e-10


def counts(chosen: Tensor, experts: int) -> Tensor:
    """[e] how often each expert is among chosen [...], float32."""
    found = torch.zeros(experts + 1, device=chosen.device)  # what was dropped counts in the last place
    places = torch.where(chosen < 0, experts, chosen).flatten()
    return found.index_add_(0, places, torch.ones_like(places, dtype=found.dtype))[:experts]


def squared_variation(load: Tensor) -> Tensor:
    """CV² = variance / mean² over all experts (population variance): 0 balanced, e - 1 collapsed (Shazeer eq. 7)."""
    return load.var(correction=0) / (load.mean().square() + _NOTHING)


def load_balance(chosen: Tensor, probabilities: Tensor, group: int | None = None) -> Tensor:
    """e Σ_e f_e P_e, f the share of tokens that chose e, P the mean probability, averaged over groups of tokens.

    chosen [n c], probabilities [n e]. Switch (arXiv 2101.03961) eq. 4; GShard's (arXiv 2006.16668, algorithm 1) up to a
    constant. Uniform routing gives c, all tokens at one expert e. The gradient comes through P alone.
    """
    n, experts = probabilities.shape
    total = probabilities.new_zeros(())
    for first in range(0, n, size := _group_size(n, group)):
        f_times_tokens = counts(chosen[first : first + size], experts)
        total = total + experts * (f_times_tokens * probabilities[first : first + size].mean(0)).sum()
    return total / n


def z_loss(logits: Tensor) -> Tensor:
    """Mean of (logsumexp of a token's logits)² (ST-MoE, arXiv 2202.08906, eq. 5)."""
    return logits.logsumexp(-1).square().mean()


def capacity(tokens: int, experts: int, factor: float, minimum: int = 1) -> int:
    """How many tokens of a group an expert takes: ⌊factor tokens / experts⌋, at least `minimum`, at most all."""
    return max(minimum, min(tokens, int(factor * tokens / experts)))


def _group_size(n: int, largest: int | None) -> int:
    """Tokens of a group: n in parts of at most `largest`, as equal as can be; the last may have fewer."""
    return -(-n // -(-n // (largest or n)))


def within_capacity(chosen: Tensor, experts: int, factor: float, group: int | None, minimum: int = 1) -> Tensor:
    """chosen [n c] with the choices that find their expert full turned to -1 (GShard, arXiv 2006.16668, algorithm 1).

    Groups of at most `group` consecutive tokens fill their experts each on its own, in the order of the tokens; second
    choices queue behind all kept first choices of their group. So a later token can push an earlier one out.
    """
    n, choices = chosen.shape
    size = _group_size(n, group)
    room = capacity(size, experts, factor, minimum)
    padded = torch.nn.functional.pad(chosen, (0, 0, 0, -n % size), value=-1).view(-1, size, choices)
    taken = padded.new_zeros(len(padded), 1, experts)  # g 1 e
    kept = []
    for choice in range(choices):
        wanted = padded[..., choice, None] == torch.arange(experts, device=chosen.device)  # g s e
        place = wanted.cumsum(1) - 1 + taken
        admitted = wanted & (place < room)
        kept.append(admitted.any(-1))
        taken = taken + admitted.sum(1, keepdim=True)
    return torch.where(torch.stack(kept, -1), padded, -1).view(-1, choices)[:n]


def expert_choice(scores: Tensor, factor: float, group: int | None) -> Tensor:
    """[n e] expert numbers: each expert takes the `capacity` tokens of a group that score highest; -1 elsewhere."""
    n, experts = scores.shape
    size = _group_size(n, group)
    padded = torch.nn.functional.pad(scores, (0, 0, 0, -n % size), value=-1.0).view(-1, size, experts)
    best = padded.topk(capacity(size, experts, factor), dim=1).indices
    taken = torch.zeros_like(padded, dtype=torch.bool).scatter_(1, best, True).view(-1, experts)[:n]
    return torch.where(taken, torch.arange(experts, device=scores.device), -1)


@torch.no_grad()
def statistics(chosen: Tensor, wanted: int, probabilities: Tensor | None, experts: int) -> Mapping[str, Tensor]:
    """What training logs of a layer's routing. chosen: [n c]. wanted: choices of a token before any was dropped.

    load: [e] tokens served by each expert, as a share of all tokens. load_variation: its CV². dropped: share of the
    wanted choices that no expert served; unserved: share of the tokens without any expert. router_entropy: mean entropy
    of probabilities [n e] in nats, at most ln e.
    """
    load = counts(chosen, experts) / len(chosen)
    found = {
        "load": load,
        "load_variation": squared_variation(load),
        "dropped": 1 - load.sum() / wanted,
        "unserved": (chosen < 0).all(-1).float().mean(),
    }
    if probabilities is not None:
        found["router_entropy"] = torch.special.entr(probabilities).sum(-1).mean()
    return found
