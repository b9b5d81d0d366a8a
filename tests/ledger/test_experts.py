"""Experts met by a batch, against draws."""

import numpy as np
import pytest

from windtunnel.ledger import expert_bytes_read, experts_touched


@pytest.mark.parametrize(("experts", "choices", "tokens"), [(16, 2, 8), (8, 2, 8), (5, 5, 1), (4, 1, 3)])
def test_expected_experts_are_those_of_draws(experts: int, choices: int, tokens: int) -> None:
    draw = np.random.default_rng(0)
    order = draw.random((3000, tokens, experts)).argsort(-1)[..., :choices]
    met = np.mean([len(np.unique(each)) for each in order])
    assert experts_touched(experts, choices, tokens) == pytest.approx(met, rel=0.01)


def test_more_experts_read_more_weights_for_the_same_batch() -> None:
    """16 experts, top-2, a batch of 8: 10.5 of them are read, one token each on average; 8 experts: 7.2."""
    assert experts_touched(16, 2, 8) == pytest.approx(10.5, abs=0.01)
    assert expert_bytes_read(16, 2, 8, 1.0) / expert_bytes_read(8, 2, 8, 1.0) == pytest.approx(1.459, abs=1e-3)
    assert expert_bytes_read(16, 2, 1, 3.0) == pytest.approx(6.0)
