"""A batch size that grows: every sequence once and in order, tokens counted rightly, horizons in tokens."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from windtunnel.data.sampler import Sampler, batch_hash
from windtunnel.data.shards import Dataset
from windtunnel.execution import Execution
from windtunnel.training.loop import Trainer
from windtunnel.training.settings import TrainingSettings

Make = Callable[..., TrainingSettings]
PALM = ((0.25, 50 / 255), (0.5, 115 / 255))


def test_palm_counts_its_tokens() -> None:
    """512 sequences to step 50k, 1024 to 115k, 2048 to 255k: 775.9 billion tokens."""
    sequences = 512 * 50_000 + 1024 * 65_000 + 2048 * 140_000
    settings = TrainingSettings(
        tokens=sequences * 2048, context=2048, batch_size=2048, learning_rate=0.01, ramp=PALM, cooldown=0.0
    )
    assert settings.steps == 255_000
    assert [settings.batch_at(step) for step in (0, 49_999, 50_000, 114_999, 115_000, 254_999)] == [
        512, 512, 1024, 1024, 2048, 2048
    ]  # fmt: skip
    assert settings.tokens_before(255_000) == pytest.approx(775.9e9, rel=1e-4)
    assert settings.tokens_before(50_000) == 512 * 50_000 * 2048


@given(st.integers(1, 6), st.integers(100, 3000), st.lists(st.floats(0.05, 0.95), min_size=0, max_size=3, unique=True))
def test_steps_tile_the_order(quarter: int, steps: int, ends: list[float]) -> None:
    ramp = tuple(zip((0.25, 0.5, 0.75), sorted(ends), strict=False))
    settings = TrainingSettings(
        tokens=4 * quarter * steps * 8, context=8, batch_size=4 * quarter, learning_rate=0.1, ramp=ramp, cooldown=0.0
    )
    seen = [sequence for step in range(settings.steps) for sequence in settings.sequences_at(step)]
    assert seen == list(range(settings.sequences))
    assert abs(settings.sequences - 4 * quarter * steps) <= 4 * quarter * (len(ramp) + 1)  # a step at each end
    for share in (0.1, 0.5, 0.9):
        stop = settings.horizon_steps(share)
        assert abs(settings.sequences_before(stop) - share * settings.sequences) <= 4 * quarter


def test_horizons_are_shares_of_tokens_not_of_steps(make_settings: Make) -> None:
    settings = make_settings(tokens=16 * 4 * 30, ramp=((0.5, 0.5),), horizons=(0.5, 1.0))
    assert (settings.steps, settings.sequences) == (40, 20 * 2 + 20 * 4)
    assert settings.horizon_steps(0.5) == 25  # 20 steps of 2 and 5 of 4
    assert settings.tokens_before(25) == settings.tokens_before(40) // 2


def test_a_ramped_step_is_the_step_of_a_small_batch(dataset: Dataset, make_spec: Any, make_settings: Make) -> None:
    """The same sequences, and micro-batches that keep their size."""
    execution = Execution(device="cpu", threads=1).resolve()
    sampler = Sampler(dataset.train, 16, 0)

    def trainer(**changes: Any) -> Trainer:
        return Trainer(make_spec().build().initialize(1), sampler, make_settings(warmup=0.0, **changes), execution)

    ramped = trainer(ramp=((0.25, 0.3125), (0.5, 0.6)), accumulation=2)
    small, half = trainer(batch_size=1), trainer(batch_size=2)
    first = ramped.settings.sequences_before(20) // 2  # the second stage goes on where the first ended
    assert [float(ramped.advance(step, None).loss) for step in range(3)] == [
        float(small.advance(step, None).loss) for step in range(3)
    ]
    half.restore(ramped.snapshot(), "ramped")
    assert ramped.settings.batch_at(20) == 2
    assert float(ramped.advance(20, None).loss) == float(half.advance(first, None).loss)


def test_the_hash_of_batches_follows_the_ramp(dataset: Dataset, make_settings: Make) -> None:
    sampler = Sampler(dataset.train, 16, 0)
    plain, ramped = make_settings(), make_settings(ramp=((0.5, 0.5),))
    assert batch_hash(sampler, plain.steps, plain.sequences_at) == batch_hash(sampler, 40, 4)
    assert batch_hash(sampler, ramped.steps, ramped.sequences_at) != batch_hash(sampler, ramped.steps, 4)
