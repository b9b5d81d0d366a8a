"""Rows and experts that several processes share: gradients of one packed batch, in float64, against one process."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.distributed import processes, work
from tests.proof import Proof
from windtunnel import recipes
from windtunnel.checkpoint import load
from windtunnel.distributed import sequence
from windtunnel.errors import InputError

EXACT = 1e-13  # of the largest gradient
SINGLE = 1e-7  # where a part is computed in float32 always, as DIFF's lambda is

WITH_EXPERTS = {
    "dropless": {"recipe": "mixtral", "accumulation": 4},
    "capacity and noise": {"recipe": "switch", "accumulation": 4},
    "two layers of experts, one choice each": {"recipe": "gpt4_rumour", "accumulation": 4},
    "chosen before the mixer": {"recipe": "router_first", "accumulation": 4},
    "recomputed": {"recipe": "mixtral", "accumulation": 4, "recompute": True},
}

WITH_TABLES = {
    "tied, scaled logits": {"recipe": "palm"},
    "apart": {"recipe": "llama"},
    "biases, additive positions": {"recipe": "gpt3", "head": {"bias": True}},
    "soft cap": {"recipe": "llama", "head": {"soft_cap": 0.5, "bias": True}},
    "scales of tokens": {"recipe": "ngpt"},
    "no z-loss, several micro-batches": {"recipe": "palm", "z_loss": 0.0, "accumulation": 2},
    "an even vocabulary, recomputed": {"recipe": "llama", "sizes": {"vocab": 68}, "recompute": True},
}


def _rows_in_parts() -> dict[str, dict[str, Any]]:
    """Every recipe that has no experts, and what recomputes its blocks."""
    cases: dict[str, dict[str, Any]] = {}
    for name in recipes.names():
        try:
            sequence.check(recipes.get(name)(**work.SIZES), 2, work.SIZES["context"])
        except InputError:
            continue
        cases[name] = {"recipe": name}
    cases["llama, convolved"] = {"recipe": "llama", "sizes": {"convolution": 4}}
    recomputed = {f"{name}, recomputed": {"recipe": name, "recompute": True} for name in ("llama", "griffin", "mamba")}
    return cases | recomputed


def _worst(mesh: str, count: int, cases: dict[str, Any], folder: Path) -> float:
    """The largest difference of a gradient from one process's, over the largest gradient of its model."""
    for side in ("alone", "together"):
        (folder / side).mkdir()
    try:
        one = work.gradients(cases, None, str(folder / "alone"))
    finally:
        torch.set_default_dtype(torch.float32)
    many = processes.run(count, "tests.distributed.work:gradients", cases, mesh, str(folder / "together"))
    worst = 0.0
    for label, loss in one.items():
        assert all(found[label] == pytest.approx(loss, abs=1e-6) for found in many), label  # told in float32
        left, right = (load(folder / side / label).tensors["model"] for side in ("alone", "together"))
        assert left.keys() == right.keys()
        assert next(iter(left.values())).dtype == torch.float64
        apart = max(float((left[name] - right[name]).abs().max()) for name in left)
        apart /= max(float(value.abs().max()) for value in left.values())
        assert apart < (SINGLE if label == "diff_transformer" else EXACT), label
        worst = max(worst, apart if label != "diff_transformer" else 0.0)
    return worst


@pytest.mark.slow
@pytest.mark.parametrize(("mesh", "count"), [("context=2", 2), ("shard=2,context=2", 4), ("shard=1,context=4", 4)])
def test_rows_in_parts_have_the_gradients_of_whole_rows(mesh: str, count: int, tmp_path: Path, proof: Proof) -> None:
    cases = _rows_in_parts()
    assert len(cases) > 20
    few = ("llama", "llama, convolved", "griffin", "longformer")
    cases = {label: case for label, case in cases.items() if count == 2 or label in few}
    proof(f"gradients on {count} processes, {mesh}", "one process", gradients=_worst(mesh, count, cases, tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize(("mesh", "count"), [("expert=2", 2), ("shard=2,expert=2", 4), ("shard=1,expert=4", 4)])
def test_experts_elsewhere_have_the_gradients_of_experts_here(
    mesh: str, count: int, tmp_path: Path, proof: Proof
) -> None:
    proof(
        f"gradients on {count} processes, {mesh}", "one process", gradients=_worst(mesh, count, WITH_EXPERTS, tmp_path)
    )


@pytest.mark.slow
@pytest.mark.parametrize(("mesh", "count"), [("tensor=2", 2), ("shard=2,tensor=2", 4), ("context=2,tensor=2", 4)])
def test_tables_in_parts_have_the_gradients_of_whole_tables(
    mesh: str, count: int, tmp_path: Path, proof: Proof
) -> None:
    proof(
        f"gradients on {count} processes, {mesh}", "one process", gradients=_worst(mesh, count, WITH_TABLES, tmp_path)
    )
