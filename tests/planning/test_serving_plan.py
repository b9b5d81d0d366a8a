"""Serving: bounds by bytes and by operations, and what fits."""

import pytest
import torch

from windtunnel import recipes
from windtunnel.errors import InputError
from windtunnel.ledger import decode_flops
from windtunnel.planning.facts import Facts
from windtunnel.planning.hardware import TABLE
from windtunnel.planning.serving import Serving, serving
from windtunnel.planning.settings import Settings
from windtunnel.root import Model

H100 = TABLE["h100"]


def served(spec: Model, **chosen: object) -> Serving:
    asked = Settings(dtype="bfloat16", **chosen)  # type: ignore[arg-type]
    return serving(Facts(spec, spec.context, torch.bfloat16), H100, asked)


def test_a_token_takes_as_long_as_reading_weights_and_states() -> None:
    spec = recipes.llama(size="7b")
    made = served(spec, serve_length=1000)
    parameters = sum(parameter.numel() for parameter in Facts(spec, 8, torch.float32).model.parameters())
    state = 32 * 1000 * 2 * 4096 * 2
    assert made.mesh.devices == 1
    assert (made.weights, made.state) == (2 * parameters, state)
    alone, four = made.batches[0], made.batches[1]
    assert alone.seconds == pytest.approx((2 * parameters + state) / H100.bandwidth)
    assert four.seconds == pytest.approx((2 * parameters + 4 * state) / H100.bandwidth)
    assert alone.bound == "memory"
    assert made.batches[-1].in_flight == made.most == int((0.9 * 80e9 - made.weights) // state)


def test_large_batches_of_small_states_are_bound_by_products() -> None:
    spec = recipes.hawk(size="7b")
    made = served(spec, serve_length=1000)
    last = made.batches[-1]
    assert last.bound == "products"
    flops = decode_flops(Facts(spec, 8, torch.float32).model, 1000)
    assert last.seconds == pytest.approx(last.sequences * flops / (H100.peak("bfloat16") * 0.6))


def test_states_that_do_not_grow_leave_the_same_room_at_any_length() -> None:
    most = [served(recipes.griffin(size="1.3b"), serve_length=length).most for length in (4_000, 400_000)]
    assert most[0] == most[1]
    growing = [served(recipes.llama(size="7b"), serve_length=length).most for length in (1_000, 8_000)]
    assert growing[0] >= 8 * growing[1]


def test_more_devices_where_one_is_too_small_and_stages_keep_more_under_way() -> None:
    made = served(recipes.palm(size="62b"))
    assert made.mesh.tensor == 2
    staged = served(recipes.palm(size="62b"), serve_mesh="tensor=2,pipeline=4")
    assert staged.batches[0].in_flight == 4
    assert staged.batches[0].seconds == pytest.approx(made.batches[0].seconds)
    assert staged.batches[0].tokens_per_second == pytest.approx(4 * made.batches[0].tokens_per_second)


def test_a_batch_reads_the_experts_that_it_meets() -> None:
    """Top-2 of 8: one token reads two experts a layer, many read all (1 - (3/4)^b of them)."""
    spec = recipes.mixtral(size="8x7b")
    made = served(spec, serve_mesh="tensor=2", serve_length=1)
    facts = Facts(spec, 8, torch.bfloat16)
    held, state = facts.held(2, 1, 1), facts.state_bytes(1, 2, 2)
    sums = 64 * 2 * 0.5 * 4096 * 2 / (H100.link * 0.7)
    for batch in made.batches[:3]:
        met = 1 - 0.75**batch.sequences
        read = 2 * (held.dense + held.tables + met * held.experts) + batch.sequences * state
        assert batch.seconds == pytest.approx(read / H100.bandwidth + batch.sequences * sums)
        assert batch.expert_tokens == batch.sequences / 4


@pytest.mark.parametrize(
    ("mesh", "words"),
    [
        ("tensor=1", "serve-mesh: one device holds 116.4 GiB of weights"),
        ("tensor=3", "tensor 3 does not divide 32 heads"),
        ("shard=2", "serving divides by tensor and pipeline alone"),
        ("pipeline=65", "pipeline 65 is more than the 64 layers"),
    ],
)
def test_meshes_that_cannot_serve(mesh: str, words: str) -> None:
    with pytest.raises(InputError) as caught:
        served(recipes.palm(size="62b"), serve_mesh=mesh)
    assert words in str(caught.value)
