"""Train on pictures, draw pictures; a grid model on text."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import windtunnel as wt
from tests.cli.conftest import Answer
from tests.report.test_picture import read
from windtunnel.inference.pictures import draw
from windtunnel.inference.sampling import Sampling

SMALL = ("--set", "layers=3", "--set", "width=16", "--set", "heads=2", "--context", "64", "--threads", "1")

Command = Callable[..., Answer]


@pytest.mark.parametrize("recipe", ["axial_image", "llama"])
def test_train_on_digits_and_draw(command: Command, recipe: str) -> None:
    options = ("--data", "digits", "--tokens", 2048, "--batch", 4, "--evaluation-tokens", 640, "--json")
    trained = command("train", recipe, *options, *SMALL, "--out", "run")
    assert trained.code == 0, trained.err
    assert 2.5 < wt.load("run").record["result"]["horizons"]["1.0"]["bits_per_byte"] < 4.5
    drawn = [command("draw", "run", "--out", f"{name}.png", "--count", 3, "--across", 2, "--json") for name in "ab"]
    assert drawn[0].code == 0, drawn[0].err
    assert drawn[0].json == {"file": "a.png", "pictures": 3, "rows": 8, "columns": 8, "seed": 0}
    page = read(Path("a.png").read_bytes())
    assert page.shape == (2 * 36 + 4, 2 * 36 + 4)
    assert len(set(page.flatten().tolist()) - {255}) > 3
    assert Path("a.png").read_bytes() == Path("b.png").read_bytes()
    assert command("draw", "run", "--out", "c.png", "--count", 3, "--across", 2, "--seed", 1).code == 0
    assert Path("c.png").read_bytes() != Path("a.png").read_bytes()
    assert command("draw", "run", "--out", "d.png", "--count", 0).error == "--count: expected at least 1, got 0"
    greedy = draw(wt.load("run"), 2, Sampling(temperature=0.0))
    assert torch.equal(greedy[0], greedy[1])


def test_a_grid_model_reads_text(command: Command, text: Path) -> None:
    """Documents of any length: windows may hold several, and it is not told where one ends."""
    options = ("--data", text, "--tokens", 4096, "--batch", 4, "--evaluation-tokens", 640, "--json")
    trained = command("train", "axial_image", *options, *SMALL, "--out", "run")
    assert trained.code == 0, trained.err
    assert "bytes-257" in command("draw", "run", "--out", "a.png").error
    assert not Path("a.png").exists()
