"""Distributions against transformers' processors and by hand; draws against the distribution."""

import math

import pytest
import torch
from scipy import stats
from transformers import (
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from windtunnel.errors import InputError, WorkError
from windtunnel.inference.sampling import Sampling, Turn, choose, distribution, draw, likeliest, uniform

LOGITS = torch.randn(7, 50, generator=torch.Generator().manual_seed(3), dtype=torch.float64) * 2
SEEN = [3, 3, 17, 49]


@pytest.mark.parametrize(
    ("settings", "processors"),
    [
        ({"temperature": 0.7}, [TemperatureLogitsWarper(0.7)]),
        ({"top_k": 5}, [TopKLogitsWarper(5)]),
        ({"top_p": 0.8}, [TopPLogitsWarper(0.8)]),
        ({"min_p": 0.1}, [MinPLogitsWarper(0.1)]),
        ({"repetition_penalty": 1.3}, [RepetitionPenaltyLogitsProcessor(1.3)]),
        (
            {"repetition_penalty": 1.2, "temperature": 1.5, "top_k": 20, "top_p": 0.9, "min_p": 0.05},
            [
                RepetitionPenaltyLogitsProcessor(1.2),
                TemperatureLogitsWarper(1.5),
                TopKLogitsWarper(20),
                TopPLogitsWarper(0.9),
                MinPLogitsWarper(0.05),
            ],
        ),
    ],
)
def test_distributions_are_those_of_transformers(settings: dict[str, float], processors: list[object]) -> None:
    scores, seen = LOGITS.clone(), torch.tensor([SEEN] * len(LOGITS))
    for processor in processors:
        scores = processor(seen, scores)  # type: ignore[operator]
    found = distribution(LOGITS, Sampling(**settings), SEEN)
    torch.testing.assert_close(found, scores.softmax(-1), rtol=0, atol=1e-14)
    assert found.dtype == torch.float64


def test_greedy_takes_the_first_of_the_largest() -> None:
    found = distribution(torch.tensor([[0.0, 2.0, 2.0, 1.0]]), Sampling(temperature=0))
    assert found.tolist() == [[0, 1, 0, 0]]
    assert draw(found[0], 0.999) == 1


@pytest.mark.parametrize("penalty", [1.0, 1.7])
def test_the_likeliest_token_is_where_the_distribution_has_it(penalty: float) -> None:
    """Among equals too: of 40 tokens with six different logits the first of the largest."""
    greedy = Sampling(temperature=0, repetition_penalty=penalty)
    for row in torch.randint(-3, 3, (50, 40), generator=torch.Generator().manual_seed(0)).float():
        wanted = distribution(row[None], greedy, [3, 5, 5, 7])[0]
        assert wanted[likeliest(row, greedy, [3, 5, 5, 7])] == 1
        if penalty == 1:
            assert likeliest(row, greedy) == row.tolist().index(max(row.tolist()))


def test_rows_that_choose_together_choose_what_each_would_alone() -> None:
    """Equal and different settings, seeds and places, a penalty, and rows that are no numbers."""
    drawn, greedy = Sampling(temperature=0.8, top_k=9), Sampling(temperature=0)
    settings = [drawn, greedy, drawn.replace(seed=4), greedy, Sampling(repetition_penalty=1.7), drawn, greedy]
    turns = [Turn(each, SEEN, place) for place, each in enumerate(settings)]
    logits = LOGITS.float().clone()
    logits[5, 3], logits[6] = math.nan, -math.inf
    alone = [
        likeliest(row, turn.sampling, turn.seen)
        if turn.sampling.greedy
        else draw(distribution(row[None], turn.sampling, turn.seen)[0], uniform(turn.sampling.seed, turn.generated))
        for row, turn in zip(logits[:5], turns[:5], strict=True)
    ]
    assert choose(logits, turns) == [*alone, None, None]
    assert choose(logits[:1], turns[:1]) == alone[:1]


def test_ties_do_not_widen_top_k() -> None:
    found = distribution(torch.zeros(1, 5), Sampling(top_k=2))
    assert found.tolist() == [[0.5, 0.5, 0, 0, 0]]


def test_draws_follow_the_distribution() -> None:
    probabilities = torch.tensor([0.1, 0.0, 0.4, 0.5, 0.0], dtype=torch.float64)
    tokens = [draw(probabilities, uniform(5, index)) for index in range(4000)]
    counts = torch.bincount(torch.tensor(tokens), minlength=5)
    assert counts[1] == counts[4] == 0
    kept = probabilities > 0
    assert stats.chisquare(counts[kept], 4000 * probabilities[kept]).pvalue > 1e-3


def test_draws_at_the_ends() -> None:
    probabilities = torch.tensor([0.0, 0.3, 0.7, 0.0], dtype=torch.float64)
    assert draw(probabilities, 0.0) == 1
    assert draw(probabilities, math.nextafter(1.0, 0.0)) == 2


def test_uniform_numbers() -> None:
    numbers = [uniform(0, index) for index in range(2000)]
    assert stats.kstest(numbers, "uniform").pvalue > 1e-3
    assert uniform(0, 1) == uniform(0, 1)
    assert len({uniform(0, 1), uniform(1, 0), uniform(0, 1, "accept")}) == 3


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"temperature": -1.0}, "temperature"),
        ({"temperature": math.nan}, "temperature"),
        ({"temperature": 0.0, "top_p": 0.5}, "temperature 0.*top_p"),
        ({"top_k": 0}, "top_k"),
        ({"top_p": 0.0}, "top_p"),
        ({"min_p": 1.5}, "min_p"),
        ({"repetition_penalty": 0.0}, "repetition_penalty"),
    ],
)
def test_settings_that_make_no_sense(settings: dict[str, float], words: str) -> None:
    with pytest.raises(InputError, match=words):
        Sampling(**settings)


@pytest.mark.parametrize("bad", [[math.nan, 0.0], [math.inf, 0.0], [-math.inf, -math.inf]])
def test_logits_that_are_no_numbers(bad: list[float]) -> None:
    with pytest.raises(WorkError, match="not numbers"):
        distribution(torch.tensor([bad]), Sampling())
    with pytest.raises(WorkError, match="not numbers"):
        likeliest(torch.tensor(bad), Sampling(temperature=0))
