"""Traffic by the formulas is traffic by passing messages around a ring."""

import pytest
import torch

from windtunnel import recipes
from windtunnel.planning.facts import Facts
from windtunnel.planning.hardware import TABLE
from windtunnel.planning.memory import Layout
from windtunnel.planning.mesh import Mesh
from windtunnel.planning.settings import Settings
from windtunnel.planning.traffic import Transfer, traffic
from windtunnel.root import Model

SMALL = {"layers": 3, "width": 32, "vocab": 64, "context": 16}


def sent(spec: Model, mesh: Mesh, recompute: float = 0.0, batch: int = 64, microbatch: int = 1) -> dict[str, Transfer]:
    facts = Facts(spec, spec.context, torch.bfloat16)
    asked = Settings(dtype="bfloat16")
    found = traffic(facts, Layout(mesh, microbatch, recompute), asked, TABLE["a100"], batch)
    return {f"{each.axis} {each.operation}": each for each in found}


def ring(members: int, passes: int) -> float:
    """Pieces that each member sends, of a whole cut into one a member: one to its neighbour in each of n - 1 rounds."""
    messages = [0] * members
    for _ in range(passes):
        for _ in range(members - 1):
            for member in range(members):
                messages[member] += 1
    assert len(set(messages)) == 1
    return messages[0] / members


@pytest.mark.parametrize("members", [2, 3, 8])
def test_gathering_is_one_way_around_a_ring_and_summing_two(members: int) -> None:
    spec = recipes.llama(**SMALL)
    facts = Facts(spec, 16, torch.bfloat16)
    whole = facts.ledger.parameters.n_total
    batch = members * 8
    summed = sent(spec, Mesh(replicate=members), batch=batch)["replicate all-reduce"]
    assert summed.sent == pytest.approx(2 * whole * ring(members, 2))
    sharded = sent(spec, Mesh(shard=members), batch=batch, microbatch=2)
    rounds = 4  # of two of the eight sequences each
    assert sharded["shard all-gather"].sent == pytest.approx(2 * whole * ring(members, 1) * 2 * rounds)
    assert sharded["shard reduce-scatter"].sent == pytest.approx(2 * whole * ring(members, 1) * rounds)


def test_parallel_blocks_halve_what_tensor_groups_sum() -> None:
    """PaLM section 2: one sum a layer and pass where serial blocks need two; recomputing adds a pass to two."""
    tokens = 64 * 16
    for parallel, branches in ((True, 3), (False, 6)):
        spec = recipes.palm(**SMALL, heads=4, parallel=parallel)
        summed = sent(spec, Mesh(tensor=4))["tensor all-reduce"]
        assert summed.sent == pytest.approx(branches * 2 * 2 * tokens * 32 * ring(4, 2))
        again = sent(spec, Mesh(tensor=4), recompute=1.0)["tensor all-reduce"]
        assert again.sent == pytest.approx(1.5 * summed.sent)


def test_experts_are_sent_two_vectors_a_choice_and_pass() -> None:
    """A vector to each of k experts and one back, a token and layer; one part in E stays at home."""
    spec = recipes.mixtral(**SMALL, experts=4, choices=2)
    tokens = 64 / 4 * 16
    exchanged = sent(spec, Mesh(expert=4))["expert all-to-all"]
    assert exchanged.sent == pytest.approx(3 * 2 * (2 * 2 * 32 * 2) * tokens * 3 / 4)


def test_context_sends_keys_and_values_or_a_state() -> None:
    cached = sent(recipes.llama(**SMALL, heads=4, kv_heads=2), Mesh(context=4))["context all-gather"]
    assert cached.sent == pytest.approx(2 * 64 * 3 * (16 * 2 * 2 * 8 * 2) * 3 / 4)
    fixed = [sent(recipes.hawk(**{**SMALL, "context": length}), Mesh(context=4)) for length in (16, 32)]
    assert fixed[0]["context all-gather"].sent == fixed[1]["context all-gather"].sent


def test_groups_that_leave_an_island_use_the_network() -> None:
    """A100s: islands of 8. A ring of 16 with 8 in each island crosses once an island, through all eight rails."""
    spec = recipes.llama(**SMALL, heads=8, kv_heads=8)
    inside = sent(spec, Mesh(shard=8))["shard all-gather"]
    assert not inside.network
    assert inside.per_host is None
    assert inside.seconds == pytest.approx(inside.sent / (300e9 * 0.7))
    across = sent(spec, Mesh(shard=16))["shard all-gather"]
    assert across.network
    assert across.per_host == pytest.approx(across.sent)
    assert across.seconds == pytest.approx(across.sent / (200e9 * 0.7))
    apart = sent(spec, Mesh(shard=8, tensor=8))["shard all-gather"]  # one of each island: a rail for each of 8 rings
    assert apart.per_host == pytest.approx(8 * apart.sent)
    assert apart.seconds == pytest.approx(apart.sent / (25e9 * 0.7))


def test_one_device_sends_nothing() -> None:
    assert sent(recipes.mixtral(**SMALL), Mesh()) == {}
