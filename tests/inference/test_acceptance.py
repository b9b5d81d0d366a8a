"""Speculative acceptance gives exactly the target's distribution: by enumeration, by sampling, at the extremes."""

import itertools

import pytest
import torch
from scipy import stats
from torch import Tensor

from windtunnel.inference.acceptance import accept, accept_greedy, acceptance_rate, tokens_per_call
from windtunnel.inference.sampling import draw, uniform
from windtunnel.selftest.drafts import ALLOWED, VOCAB, distance, laws


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("drafted", [1, 2, 3])
def test_what_a_round_emits_and_the_target_goes_on_from_has_the_targets_law(seed: int, drafted: int) -> None:
    assert distance(laws(seed), laws(100 + seed, peaked=2.0), drafted) < ALLOWED


def rounds(p: dict[tuple[int, ...], Tensor], q: dict[tuple[int, ...], Tensor], seed: int, drafted: int = 2) -> tuple:
    """Three tokens by as many rounds as they take."""
    text: tuple[int, ...] = ()
    numbers = itertools.count()
    while len(text) < 3:
        count = min(drafted, 2 - len(text))
        draft: list[int] = []
        for _ in range(count):
            draft.append(draw(q[(*text, *draft)], uniform(seed, next(numbers), "draft")))
        given = [(*text, *draft[:place]) for place in range(count + 1)]
        found = accept(
            draft,
            torch.stack([q[c] for c in given[:-1]]) if draft else torch.empty(0, VOCAB),
            torch.stack([p[c] for c in given]),
            lambda place, purpose: uniform(seed, next(numbers), purpose),
        )
        text = (*text, *draft[: found.kept], found.token)
    return text


def test_three_tokens_follow_the_joint_law() -> None:
    """64 cells, those that expect fewer than 5 pooled."""
    p, q, trials = laws(7), laws(8, peaked=2.0), 12_000
    counts: dict[tuple, int] = {}
    for seed in range(trials):
        text = rounds(p, q, seed)
        counts[text] = counts.get(text, 0) + 1
    expected = {
        text: trials * float(p[()][text[0]] * p[text[:1]][text[1]] * p[text[:2]][text[2]])
        for text in itertools.product(range(VOCAB), repeat=3)
    }
    large = [text for text, number in expected.items() if number >= 5]
    observed = [counts.get(text, 0) for text in large] + [sum(n for t, n in counts.items() if t not in set(large))]
    wanted = [expected[text] for text in large] + [trials - sum(expected[text] for text in large)]
    assert stats.chisquare(observed, wanted).pvalue > 1e-3


def test_the_rate_is_one_minus_the_distance() -> None:
    p, q = laws(1)[()], laws(2)[()]
    assert float(acceptance_rate(p, q)) == pytest.approx(1 - 0.5 * float((p - q).abs().sum()), abs=1e-15)


def test_a_draft_from_the_target_is_always_kept() -> None:
    p = torch.stack([laws(1)[()]] * 4)
    found = accept([0, 1, 2], p[:3], p, lambda place, purpose: uniform(0, place, purpose))
    assert found.kept == 3


def test_disjoint_supports_keep_nothing() -> None:
    p, q = torch.tensor([[0.0, 1.0, 0.0]] * 3), torch.tensor([[1.0, 0.0, 0.0]] * 2)
    found = accept([0, 0], q, p, lambda place, purpose: 0.0)
    assert found == (0, 1)


def test_greedy_keeps_exactly_the_targets_choice() -> None:
    p = torch.eye(3)[[2, 1, 0]]
    assert accept([2, 1], torch.eye(3)[[2, 1]], p, lambda place, purpose: 0.5) == (2, 0)
    assert accept([2, 0], torch.eye(3)[[2, 0]], p, lambda place, purpose: 0.5) == (1, 1)


def test_expected_tokens_are_the_papers() -> None:
    assert tokens_per_call(0.8, 4) == pytest.approx(3.3616)
    assert tokens_per_call(0.8, 5) == pytest.approx(3.689, abs=5e-4)
    assert tokens_per_call(0.6, 4) == pytest.approx(2.306, abs=5e-4)
    assert tokens_per_call(0.9, 8) == pytest.approx(6.126, abs=5e-4)
    assert tokens_per_call(1.0, 4) == 5


@pytest.mark.parametrize("drafted", list(itertools.product(range(3), repeat=3)))
def test_a_greedy_target_is_judged_without_distributions(drafted: tuple[int, ...]) -> None:
    best = [2, 0, 1, 1]
    found = accept_greedy(drafted, lambda place: best[place])
    certain = torch.eye(3, dtype=torch.float64)
    assert found == accept(drafted, certain[list(drafted)], certain[best], lambda place, use: uniform(0, place, use))
