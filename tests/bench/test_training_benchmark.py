"""The training benchmark's own honesty: the rivals compute the same function, and ratios are paired."""

import math
from pathlib import Path

import pytest
import torch

from windtunnel.bench.contestants import prepare, write_problem
from windtunnel.bench.shape import Shape
from windtunnel.bench.spread import paired_ratio

SMALL = Shape(layers=2, width=32, heads=4, hidden=48, vocab=64, context=16, batch_size=2)


@pytest.fixture(scope="module")
def problem(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bench") / "problem.pt"
    write_problem(SMALL, path)
    return path


@pytest.mark.parametrize("rival", ["plain", "transformers"])
def test_rivals_train_the_same_model(problem: Path, rival: str) -> None:
    """Same loss before, and after three steps of clipping and AdamW."""
    threads = torch.get_num_threads()
    ours, theirs = (prepare(name, SMALL, problem, True, True, threads) for name in ("windtunnel", rival))
    for _ in range(4):
        assert ours() == pytest.approx(theirs(), rel=2e-5)


def test_ratio_pairs_rounds() -> None:
    ratio = paired_ratio([2.0, 20.0, 200.0], [1.0, 10.0, 100.0])
    assert ratio.value == pytest.approx(2.0)
    assert ratio.low == pytest.approx(2.0)
    wide = paired_ratio([1.0, 4.0], [1.0, 1.0])
    assert wide.value == pytest.approx(2.0)
    assert wide.low < 1.0 < wide.high
    assert paired_ratio([1.0], [1.0]).high == math.inf


def test_default_shape_is_the_stated_model() -> None:
    with torch.device("meta"):
        model = Shape().spec().build()
    assert sum(parameter.numel() for parameter in model.parameters()) == 6_843_648
