"""Bytes of a plan are the bytes of real tensors."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from windtunnel import recipes
from windtunnel.planning.activations import activations
from windtunnel.planning.facts import Facts
from windtunnel.planning.memory import Layout, Part, memory
from windtunnel.planning.mesh import Mesh
from windtunnel.planning.settings import Settings
from windtunnel.root import Model
from windtunnel.training.optimisers import OPTIMISERS, build_optimisers
from windtunnel.training.optimisers.state import flatten_state
from windtunnel.training.settings import TrainingSettings

SMALL = {"layers": 2, "width": 32, "vocab": 64, "context": 16}


def parts(spec: Model, mesh: Mesh, recompute: float = 0.0, microbatch: int = 1, **chosen: object) -> dict[str, Part]:
    asked = Settings(dtype="float32", **chosen)  # type: ignore[arg-type]
    facts = Facts(spec, spec.context, torch.float32)
    return {part.name: part for part in memory(facts, Layout(mesh, microbatch, recompute), asked)}


@pytest.mark.parametrize("optimiser", OPTIMISERS)
@pytest.mark.parametrize("recipe", ["palm", "mixtral"])
def test_weights_gradients_and_moments_are_those_of_a_real_step(recipe: str, optimiser: str) -> None:
    spec = recipes.build(recipe, **SMALL)
    model = spec.build().initialize(0)
    rates = TrainingSettings(tokens=1024, context=16, batch_size=2, learning_rate=1e-3, optimiser=optimiser)
    optimisers = build_optimisers(model, rates)
    model.loss(torch.zeros(2, 16, dtype=torch.long), torch.ones(2, 16, dtype=torch.long)).total.backward()
    for one in optimisers:
        one.step()
    made = parts(spec, Mesh(), optimiser=optimiser)
    held = sum(parameter.nbytes for parameter in model.parameters())
    kept = flatten_state(optimisers, dict(model.named_parameters())).values()
    moments = sum(value.numel() * 4 for value in kept if value.ndim)
    assert made["parameters"].size == held
    assert made["gradients"].size == held
    assert made["optimiser state"].size == moments


def kept_by_autograd(spec: Model, length: int) -> int:
    """Bytes of the storages that a real forward pass of the blocks leaves behind, in float32 on the CPU."""
    model = spec.build().initialize(0)
    tokens = torch.randint(spec.vocab, (1, length))
    context = model.context_of(tokens)
    own = {parameter.data_ptr() for parameter in model.parameters()}
    sizes: dict[int, int] = {}
    held = []

    def note(saved: torch.Tensor) -> torch.Tensor:
        storage = saved.untyped_storage()
        if storage.data_ptr() not in own:
            sizes[storage.data_ptr()] = storage.nbytes()
            held.append(saved)
        return saved

    with torch.autograd.graph.saved_tensors_hooks(note, lambda saved: saved):
        held.append(model.encode(tokens, None, context).hidden)
    tables = [table for entry in context.tables.values() for table in (entry if isinstance(entry, tuple) else (entry,))]
    shared = {table.untyped_storage().data_ptr() for table in tables if isinstance(table, torch.Tensor)}
    return sum(size for pointer, size in sizes.items() if pointer not in shared)


@pytest.mark.parametrize(
    ("recipe", "tolerance"),
    [("llama", 0.01), ("palm", 0.01), ("gpt_j", 0.01), ("hawk", 0.01), ("mamba", 0.01), ("mixtral", 0.1)],
)
def test_activations_are_what_autograd_keeps(recipe: str, tolerance: float) -> None:
    """At a length where a CPU keeps no maps either; experts are counted by something like them."""
    length = 576
    one, three = (recipes.build(recipe, layers=layers, width=64, vocab=64, context=length) for layers in (1, 3))
    real = (kept_by_autograd(three, length) - kept_by_autograd(one, length)) / length
    counted = activations(three, length, torch.float32).blocks
    assert sum(counted[1:]) == pytest.approx(real, rel=tolerance)


def test_a_gpt_keeps_what_the_published_formula_says() -> None:
    """Korthikanti et al. 2022 (arXiv 2205.05198, eq. 1): 34 s b h with dropout's masks, of which there are two here
    less; maps are not kept. Beside it: a logsumexp a head, and two statistics a norm."""
    spec = recipes.gpt3(layers=2, width=256, vocab=64, context=128, heads=4, banded=False)
    counted = activations(spec, 128, torch.bfloat16)
    assert counted.blocks[0] == pytest.approx(32 * 256 + 4 * 4, rel=0.01)
    assert counted.stream == 2 * 256
    assert counted.replaced == ()


def test_parts_that_need_data_are_said_to_be_replaced() -> None:
    for recipe, replaced in (("mixtral", ("Experts",)), ("bigbird", ("SparseAttention",)), ("palm", ())):
        assert activations(recipes.build(recipe, **SMALL), 16, torch.float32).replaced == replaced


def test_recomputing_trades_activations() -> None:
    spec = recipes.llama(**{**SMALL, "layers": 12})
    stored, again, partly = (parts(spec, Mesh(), share) for share in (0.0, 1.0, 0.5))
    inputs = 12 * 16 * 32 * 4
    assert again["activations"].size == inputs
    assert again["recomputed layer"].size == pytest.approx(stored["activations"].size / 12)
    assert partly["activations"].size == pytest.approx((stored["activations"].size + inputs) / 2)


@settings(max_examples=12, deadline=None)
@given(st.sampled_from([1, 2, 4]), st.sampled_from([1, 2, 4, 8]), st.sampled_from([1, 2, 4]))
def test_devices_together_hold_everything_once(tensor: int, shard: int, replicate: int) -> None:
    """Matrices are divided by tensor, vectors copied; everything is divided by shard, copied by replicate."""
    spec = recipes.llama(**SMALL, heads=4, kv_heads=4)
    made = parts(spec, Mesh(tensor=tensor, shard=shard, replicate=replicate))
    with torch.device("meta"):
        sizes = dict(spec.build().named_parameters())
    vectors = sum(parameter.numel() for parameter in sizes.values() if parameter.ndim == 1)
    matrices = sum(parameter.numel() for parameter in sizes.values() if parameter.ndim == 2)
    assert made["parameters"].size * tensor * shard == pytest.approx(4 * (matrices + tensor * vectors))


def test_experts_are_divided_and_what_is_shared_is_not() -> None:
    spec = recipes.mixtral(**SMALL, experts=4)
    facts = Facts(spec, 16, torch.float32)
    whole, divided = facts.held(1, 1, 1), facts.held(1, 4, 1)
    assert divided.experts == whole.experts / 4
    assert (divided.dense, divided.tables) == (whole.dense, whole.tables)
    assert whole.total == facts.ledger.parameters.n_total


def test_stages_of_a_pipeline_hold_their_layers_and_microbatches_wait() -> None:
    spec = recipes.llama(**{**SMALL, "layers": 6})
    facts = Facts(spec, 16, torch.float32)
    assert facts.held(1, 1, 3).dense == facts.held(1, 1, 1).dense / 3
    assert facts.held(1, 1, 4).dense == facts.held(1, 1, 1).dense / 3  # two layers in the fullest of four stages
    assert parts(spec, Mesh(pipeline=3))["activations"].size == parts(spec, Mesh())["activations"].size


@pytest.mark.parametrize("recipe", ["llama", "griffin", "mamba", "efficient_attention"])
def test_states_are_the_ledgers(recipe: str) -> None:
    facts = Facts(recipes.build(recipe, **SMALL), 16, torch.float32)
    assert facts.state_bytes(16, 1, 4) == facts.ledger.state_bytes[16]


def test_one_key_value_head_is_copied_and_several_are_divided() -> None:
    for groups, divisor in ((1, 1), (2, 2), (4, 4)):
        facts = Facts(recipes.llama(**SMALL, heads=4, kv_heads=groups), 16, torch.float32)
        assert facts.state_bytes(16, 4, 4) == facts.state_bytes(16, 1, 4) / divisor
