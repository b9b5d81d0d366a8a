"""Meshes that are proposed can be built and fit; what cannot be done is refused with what would do."""

import itertools
import re
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from windtunnel import recipes
from windtunnel.errors import InputError
from windtunnel.planning import Settings, parse_mesh, plan
from windtunnel.planning.facts import Facts
from windtunnel.planning.hardware import TABLE
from windtunnel.planning.mesh import INNER_FIRST, Mesh
from windtunnel.planning.search import meshes, ranked
from windtunnel.planning.step import Task

SMALL = {"layers": 4, "width": 64, "vocab": 64, "context": 32}
A100 = TABLE["a100"]


def task(devices: int, batch: int, **chosen: object) -> Task:
    spec = recipes.mixtral(**SMALL, heads=4, kv_heads=2, hidden=48, experts=4)
    asked = Settings(dtype="bfloat16", **chosen)  # type: ignore[arg-type]
    return Task(Facts(spec, 32, torch.bfloat16), A100, asked, devices, batch)


@settings(max_examples=10, deadline=None)
@given(st.sampled_from([1, 2, 6, 8, 16, 24]), st.sampled_from([1, 8, 48]))
def test_meshes_divide_devices_model_and_batch_and_none_is_forgotten(devices: int, batch: int) -> None:
    given_task = task(devices, batch)
    found = list(meshes(given_task))
    assert len(found) == len(set(found))
    sizes = range(1, devices + 1)
    whole = {
        Mesh(replicate=r, shard=s, expert=e, context=1, tensor=t)
        for r, s, e, t in itertools.product(sizes, sizes, (1, 2, 4), (1, 2, 4))
        if r * s * e * t == devices and batch % (r * s * e) == 0
    }
    assert {mesh for mesh in found if mesh.context == 1} == whole
    for mesh in found:
        assert mesh.devices == devices
        given_task.check(mesh)


def test_the_ranking_fits_and_is_in_order() -> None:
    steps = ranked(task(8, 64))
    assert steps
    assert all(step.fits and step.bytes == sum(part.size for part in step.memory) for step in steps)
    assert [step.modelled for step in steps] == sorted(step.modelled for step in steps)


def test_a_step_is_the_sum_of_its_parts_and_utilisations_follow() -> None:
    step = ranked(task(8, 64, utilisation=0.5))[0]
    assert step.modelled == step.products + step.bubble + step.waits + step.update
    assert step.mfu == pytest.approx(
        step.task.facts.ledger.training.dense * 64 * 32 / (step.modelled * 8 * A100.peak("bfloat16"))
    )
    assert step.mfu_attended < step.mfu <= step.hfu
    observed = replace(step, task=replace(step.task, settings=Settings(dtype="bfloat16", throughput=1000.0)))
    assert observed.seconds == 64 * 32 / 1000


def test_a_pipeline_waits_for_its_first_and_last_microbatch() -> None:
    """(p - 1) / m of the products' time (Huang et al. 2019)."""
    spec = recipes.llama(**SMALL)
    made = plan(spec, 32, A100, 4, Settings(batch=16, microbatch=2), "pipeline=4")
    assert made.step.bubble == pytest.approx(made.step.products * 3 / 8)


@pytest.mark.parametrize(
    ("text", "devices", "words"),
    [
        ("tensor=4", 6, "tensor 4 is 4, which does not divide 6 devices"),
        ("tensor=2,shard=2", 8, "tensor 2 x shard 2 is 4, not the 8 devices"),
        ("tnesor=2", 8, "unknown axis 'tnesor'; did you mean tensor"),
        ("tensor=2,tensor=4", 8, "tensor is given twice"),
        ("tensor=0", 8, "tensor: expected at least 1, got 0"),
        ("tensor=x", 8, "tensor: expected a count"),
    ],
)
def test_meshes_that_cannot_be(text: str, devices: int, words: str) -> None:
    with pytest.raises(InputError, match=r"^mesh: ") as caught:
        parse_mesh(text, devices)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("mesh", "words"),
    [
        (Mesh(tensor=3), "mesh: tensor 3 does not divide 4 heads"),
        (Mesh(pipeline=3), "mesh: pipeline 3 does not divide 4 layers"),
        (Mesh(context=5), "mesh: context 5 does not divide sequences of 32 tokens"),
        (Mesh(expert=3), "mesh: expert 3 does not divide 4 experts"),
        (Mesh(shard=2), "microbatch: 5 does not divide the 32 sequences of a device"),
        (Mesh(shard=3), "batch: 64 sequences do not divide among replicate 1 x shard 3 x expert 1 = 3 places"),
    ],
)
def test_meshes_that_do_not_divide_the_model(mesh: Mesh, words: str) -> None:
    with pytest.raises(InputError) as caught:
        task(mesh.devices, 64, microbatch=5).check(mesh)
    assert str(caught.value) == words


def test_hidden_widths_are_divided_too() -> None:
    facts = Facts(recipes.llama(**SMALL, heads=4, hidden=50), 32, torch.float32)
    with pytest.raises(InputError, match=r"tensor 4 does not divide the 50 of blocks\.0\.mlp"):
        facts.check(Mesh(tensor=4))
    dense = Facts(recipes.llama(**SMALL), 32, torch.float32)
    with pytest.raises(InputError, match="no experts"):
        dense.check(Mesh(expert=2))


@pytest.mark.parametrize(
    ("mesh", "devices", "asked", "remedy"),
    [
        ("tensor=8", 8, {"recompute": 0.0, "microbatch": 256}, r"--recompute [01] with --microbatch \d+ would do"),
        ("replicate=8", 8, {}, "--mesh .*=.* would do"),
        (None, 1, {}, "[0-9]+ devices would do, as .*="),
    ],
)
def test_too_little_memory_is_said_with_what_would_do(
    mesh: str | None, devices: int, asked: dict[str, float], remedy: str
) -> None:
    """8.6 billion parameters and A100s of 80 GB."""
    spec = recipes.palm(size="8b")
    with pytest.raises(InputError, match=r"needs [\d.]+ GiB on a device of [\d.]+ GiB .*" + remedy) as caught:
        plan(spec, 2048, A100, devices, Settings(batch=256, **asked), mesh)
    assert "\n" not in str(caught.value)
    again = re.search(r"--recompute (\S+) with --microbatch (\d+)", str(caught.value))
    other = re.search(r"--mesh (\S+)", str(caught.value))
    more = re.search(r"(\d+) devices", str(caught.value))
    if again is not None:
        settings = Settings(batch=256, recompute=float(again[1]), microbatch=int(again[2]))
        assert plan(spec, 2048, A100, devices, settings, mesh).step.fits
    elif other is not None:
        assert plan(spec, 2048, A100, devices, Settings(batch=256), other[1]).step.fits
    else:
        assert more is not None
        assert plan(spec, 2048, A100, int(more[1]), Settings(batch=256)).step.fits
        with pytest.raises(InputError):
            plan(spec, 2048, A100, int(more[1]) // 2, Settings(batch=256))


def test_no_number_of_devices_may_be_enough() -> None:
    """A layer's buffers do not shrink beyond what its heads allow."""
    spec = recipes.palm(size="8b", heads=1)
    with pytest.raises(InputError, match="no number of these devices would do"):
        plan(spec, 2048, replace(A100, memory=2e9), 8, Settings(batch=256))


@settings(max_examples=20, deadline=None)
@given(st.lists(st.sampled_from([1, 2, 3]), min_size=6, max_size=6), st.sampled_from([1, 2, 4, 6, 12]))
def test_members_of_an_island_are_counted(sizes: list[int], island: int) -> None:
    """By numbering all devices, the innermost axis fastest: exact where islands hold whole inner axes."""
    mesh = Mesh(**dict(zip(INNER_FIRST, sizes, strict=True)))
    inside = 1
    for name in INNER_FIRST:
        size = getattr(mesh, name)
        alone = sum(1 for k in range(size) if k * inside < island)
        if inside * size <= island or island % inside == 0:
            assert mesh.near(island, name) == max(1, min(alone, island // inside))
        inside *= size
    assert mesh.span("replicate") == mesh.devices
