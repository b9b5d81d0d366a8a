"""Six counts by hand, state bytes against the tensors of a real state, crossovers."""

import pytest
import torch

import windtunnel as wt
from tests.recipes.cases import CASES, model_of, spec_of
from windtunnel.init import Linear
from windtunnel.layer import Layer
from windtunnel.ledger import Parameters, count, crossover, ledger, memory, n_body
from windtunnel.selftest.operations import held_bytes

EVERY_CASE = pytest.mark.parametrize("case", CASES)
V, D, L, F = 50, 32, 3, 88


def counts(recipe: str, **given: object) -> Parameters:
    spec = wt.recipes.get(recipe)(vocab=V, width=D, layers=L, hidden=F, context=20, **given)
    with torch.device("meta"):
        return count(spec.build())


def test_untied_tables_count_apart() -> None:
    body = L * (4 * D * D + 3 * D * F + 2 * D) + D
    matrices = L * (4 * D * D + 3 * D * F) + V * D
    assert counts("llama") == Parameters(2 * V * D + body, V * D, V * D, body, matrices, matrices, body)


def test_a_tied_table_is_an_input_table_that_is_also_multiplied() -> None:
    untied, tied = counts("llama"), counts("llama", tied=True)
    assert tied.n_unemb == 0
    assert tied.n_total == untied.n_total - V * D
    assert (tied.n_emb, tied.n_body, tied.n_matmul) == (untied.n_emb, untied.n_body, untied.n_matmul)


def test_position_tables_are_input_tables() -> None:
    found = counts("gpt3")
    assert found.n_emb == V * D + 20 * D
    assert found.n_body == L * (4 * D * D + 4 * D + 2 * D * F + F + D + 4 * D) + 2 * D
    assert found.n_matmul == L * (4 * D * D + 2 * D * F) + V * D


def test_scales_are_body_but_no_matrices() -> None:
    found = counts("ngpt")
    assert found.n_body == L * (4 * D * D + 3 * D * F + D + 2 * D + 2 * F) + V
    assert found.n_matmul == L * (4 * D * D + 3 * D * F) + V * D


def test_experts_that_a_token_does_not_meet_are_not_active() -> None:
    class HalfIdle(Layer):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = Linear(4, 4, "embedding")
            self.inner = Linear(4, 6, "inner")

        def idle_parameters(self) -> int:
            return 12

    found = count(HalfIdle())
    assert (found.n_total, found.n_active) == (40, found.n_matmul - 12)
    assert found.n_body_active == found.n_body - 12


def test_designs_that_are_known_to_match() -> None:
    """Section 3 of the protocol: 8 d² either way, and differential attention beside its baseline."""
    width = 96
    dense = counted_mlp("gpt3", width, 4 * width)
    gated = counted_mlp("llama", width, 8 * width // 3)
    assert dense == gated == 8 * width * width
    base, sizes = {"vocab": V, "width": width, "layers": 2}, {"hidden": 100}
    differential = n_body(wt.recipes.get("diff_transformer")(heads=4, **base, **sizes))
    ordinary = n_body(wt.recipes.get("llama")(heads=8, **base, **sizes))
    head = width // 8
    assert differential - ordinary == 2 * (4 * head + 2 * head)


def counted_mlp(recipe: str, width: int, hidden: int) -> int:
    """Matrix parameters of one MLP, biases left out."""
    sizes = {"vocab": V, "width": width, "layers": 1, "heads": 4}
    with torch.device("meta"):
        model = wt.recipes.get(recipe)(hidden=hidden, **sizes).build()
    return sum(p.numel() for name, p in model.named_parameters() if ".mlp." in name and p.dim() > 1)


def test_official_differential_parity() -> None:
    """D = 1024: 8 differential heads have 4 * 1024² + 4 * 64 lambdas + 128 gains; the baseline's 16 have 4 * 1024²."""
    sizes = {"vocab": V, "width": 1024, "layers": 1, "hidden": 8}
    rest = 3 * 1024 * 8 + 3 * 1024
    assert n_body(wt.recipes.get("diff_transformer")(heads=8, **sizes)) == 4 * 1024**2 + 4 * 64 + 128 + rest
    assert n_body(wt.recipes.get("diff_transformer")(heads=8, gain=False, **sizes)) == 4 * 1024**2 + 4 * 64 + rest
    assert n_body(wt.recipes.get("llama")(heads=16, **sizes)) == 4 * 1024**2 + rest


@EVERY_CASE
def test_counts_do_not_depend_on_the_device(case: str) -> None:
    spec = spec_of(case)
    assert count(model_of(case)) == ledger(spec, 64).parameters
    assert n_body(spec) == ledger(spec, 64).parameters.n_body


@EVERY_CASE
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_state_bytes_are_those_of_the_tensors(case: str, dtype: torch.dtype) -> None:
    model = model_of(case, dtype=dtype)
    for length in (1, 5, 6, 7, 40):
        held, said = held_bytes(model, length)
        assert held == said, length


def test_memory() -> None:
    assert memory(10) == (40, 40, 80)
    assert memory(10, parameter=2, gradient=2, master_copy=True) == (20, 20, 120)
    assert memory(10).total == 160
    found = ledger(spec_of("llama"), 64)
    assert found.memory.total == 16 * found.parameters.n_total


def test_the_cache_outweighs_the_parameters_where_it_should() -> None:
    found = ledger(spec_of("llama"), 64)
    per_token = 3 * 2 * 64 * 4
    assert found.parameter_crossover == -(-found.memory.parameters // per_token)
    assert ledger(spec_of("gpt3", window=5, layers=1), 64).parameter_crossover is not None


def test_crossovers() -> None:
    assert crossover(lambda t: 10 * t, lambda t: 1000) == 100
    assert crossover(lambda t: 1000, lambda t: 10 * t) == 100
    assert crossover(lambda t: 3 * t, lambda t: 1000 + t) == 500
    assert crossover(lambda t: min(t, 50), lambda t: 1000) is None
    assert crossover(lambda t: t, lambda t: t) is None
    assert crossover(lambda t: 2 * t, lambda t: t) is None
