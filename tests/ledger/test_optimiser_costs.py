"""What the ledger says of optimisers against the tensors that they keep."""

import pytest
import torch

from windtunnel import recipes
from windtunnel.errors import InputError
from windtunnel.ledger import ledger, optimiser_costs
from windtunnel.training.optimisers import OPTIMISERS, build_optimisers
from windtunnel.training.optimisers.state import flatten_state
from windtunnel.training.settings import TrainingSettings

SIZES = {"layers": 2, "width": 16, "vocab": 40, "context": 16}


@pytest.mark.parametrize("recipe", ["llama", "griffin", "mixtral"])
@pytest.mark.parametrize("name", OPTIMISERS)
def test_state_is_that_of_the_real_tensors(name: str, recipe: str) -> None:
    spec = recipes.get(recipe)(**SIZES)
    model = spec.build().initialize(0)
    settings = TrainingSettings(tokens=64, context=16, batch_size=1, learning_rate=1e-3, optimiser=name)
    optimisers = build_optimisers(model, settings)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    for optimiser in optimisers:
        optimiser.step()
    held = {
        key: tensor
        for key, tensor in flatten_state(optimisers, dict(model.named_parameters())).items()
        if not key.endswith("/step")
    }
    counted = ledger(spec, 16, optimiser=name)
    assert counted.memory.optimiser == sum(tensor.nbytes for tensor in held.values())
    assert counted.memory.total == counted.memory.optimiser + 8 * counted.parameters.n_total


def test_operations_of_muon_are_those_of_its_products() -> None:
    """Each matrix of m x n: five times X X' (2 m n²), its square (2 n³) and the product with X (2 m n²)."""
    model = recipes.get("llama")(**SIZES, heads=2, hidden=24, tied=False).build()
    squares, halves = 2 * 4, 2 * 3
    products = 5 * (squares * (4 * 16 * 16**2 + 2 * 16**3) + halves * (4 * 24 * 16**2 + 2 * 16**3))
    matrices = squares * 16 * 16 + halves * 16 * 24
    spent = optimiser_costs(model, "muon").operations
    assert spent["Muon"] == products + 6 * matrices
    assert spent["AdamW"] == 14 * (2 * 40 * 16 + 5 * 16)


def test_unknown_optimisers_are_named() -> None:
    with pytest.raises(InputError, match="adamm"):
        optimiser_costs(recipes.get("llama")(**SIZES).build(), "adamm")
