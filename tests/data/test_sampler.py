"""The sampler, against plain slices of the stream and enumeration of whole epochs."""

import hashlib
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from windtunnel.data.sampler import Sampler, batch_hash, permute
from windtunnel.data.shards import Split
from windtunnel.errors import InputError
from windtunnel.selftest.order import cut_differs

END = 9


def make_split(lengths: list[int]) -> Split:
    """Documents of the given lengths, whose tokens are never END."""
    rng = np.random.default_rng(0)
    documents = [np.concatenate([[END], rng.integers(0, END, size=n)]) for n in lengths]
    offsets = np.cumsum([0, *(len(document) for document in documents)])
    tokens = np.concatenate(documents).astype(np.uint16)
    return Split(tokens, offsets, np.array(lengths), [str(n) for n in lengths], [None] * len(lengths), END)


SPLIT = make_split([30, 1, 0, 200, 77, 5, 400])


@given(st.integers(1, 3000), st.lists(st.integers(0, 2**64 - 1), min_size=6, max_size=6))
@settings(max_examples=60, deadline=None)
def test_permutation_hits_everything_once(size: int, keys: list[int]) -> None:
    image = permute(np.arange(size, dtype=np.uint64), size, np.array(keys, dtype=np.uint64))
    assert sorted(image.tolist()) == list(range(size))


def test_permutation_of_billions_is_computed_for_a_few() -> None:
    size = 7_000_000_001
    keys = np.arange(1, 7, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    image = permute(np.arange(100_000, dtype=np.uint64), size, keys)
    assert len(set(image.tolist())) == 100_000
    assert int(image.max()) < size
    tenths = np.bincount((image.astype(np.float64) / size * 10).astype(int), minlength=10)
    assert abs(tenths - 10_000).max() < 500  # five standard deviations
    assert abs(np.corrcoef(np.arange(100_000), image.astype(np.float64))[0, 1]) < 0.02


@pytest.mark.parametrize("context", [1, 7, 32])
def test_an_epoch_is_every_window_once(context: int) -> None:
    sampler = Sampler(SPLIT, context, data_seed=3)
    starts = np.concatenate([sampler.starts(step, 1) for step in range(2 * sampler.windows)])
    for epoch in (starts[: sampler.windows], starts[sampler.windows :]):
        ordered = np.sort(epoch)
        assert (np.diff(ordered) == context).all()
        assert 0 <= ordered[0] < context
        assert ordered[-1] + context < SPLIT.tokens.size
    assert not np.array_equal(starts[: sampler.windows], starts[sampler.windows :])


def test_a_batch_is_slices_of_the_stream() -> None:
    sampler = Sampler(SPLIT, 16, data_seed=1)
    for step in range(10):
        batch = sampler.batch(step, 5)
        assert batch.tokens.dtype == batch.targets.dtype == torch.int64
        for row, start in enumerate(sampler.starts(step, 5).tolist()):
            window = SPLIT.tokens[start : start + 17].tolist()
            assert batch.tokens[row].tolist() == window[:-1]
            assert batch.targets[row].tolist() == window[1:]


def test_documents_are_numbered_by_their_end_of_text() -> None:
    sampler = Sampler(SPLIT, 16, data_seed=1)
    seen = Counter[bool]()
    for step in range(40):
        batch = sampler.batch(step, 3)
        owners = []
        for start in sampler.starts(step, 3).tolist():
            owner = [sum(int(offset) <= place for offset in SPLIT.offsets[:-1]) for place in range(start, start + 16)]
            owners.append([one - owner[0] for one in owner])
        seen[batch.documents is None] += 1
        if batch.documents is None:
            assert not any(any(owner) for owner in owners)
        else:
            assert batch.documents.tolist() == owners
            assert any(any(owner) for owner in owners)
    assert set(seen) == {True, False}


@given(st.integers(0, 500), st.integers(1, 12), st.data())
@settings(max_examples=50, deadline=None)
def test_rows_do_not_depend_on_the_split(step: int, batch_size: int, data: st.DataObject) -> None:
    assert not cut_differs(SPLIT, 8, step, batch_size, data.draw(st.integers(0, batch_size)))


def test_the_seed_decides_and_nothing_else() -> None:
    hashes = {seed: batch_hash(Sampler(SPLIT, 16, seed), 200, 4) for seed in range(5)}
    assert len(set(hashes.values())) == 5
    assert batch_hash(Sampler(SPLIT, 16, 0), 200, 4) == hashes[0]


@pytest.mark.parametrize("steps", [0, 1, 64, 65, 128, 129, 300])
def test_batch_hash_is_the_first_and_last_64(steps: int) -> None:
    sampler = Sampler(SPLIT, 16, 0)
    digest = hashlib.sha256()
    for step in range(steps):
        if step < 64 or step >= steps - 64:
            batch = sampler.batch(step, 2)
            ids = torch.cat([batch.tokens, batch.targets[:, -1:]], 1)
            digest.update(b"".join(int(i).to_bytes(4, "little") for i in ids.flatten()))
    assert batch_hash(sampler, steps, 2) == digest.hexdigest()


def test_the_first_batches_stay_what_they_are() -> None:
    """A change here would make results of different versions of the package incomparable."""
    assert Sampler(SPLIT, 16, 0).starts(0, 6).tolist() == [435, 275, 643, 339, 691, 51]


def test_epochs_and_their_limit() -> None:
    sampler = Sampler(SPLIT, 16, 0)
    assert sampler.windows == (SPLIT.tokens.size - 16) // 16
    assert sampler.epochs(sampler.windows, 3) == 3.0
    sampler.check_epochs(sampler.windows, 4)
    with pytest.raises(InputError, match=r"would be 5\.0 epochs.*at most \d+ tokens, or name more data"):
        sampler.check_epochs(sampler.windows, 5)
    sampler.check_epochs(sampler.windows, 5, max_epochs=5)


@pytest.mark.parametrize(
    ("context", "message"), [(0, "context must be at least 1"), (1000, "at least 2000 are needed")]
)
def test_impossible_contexts(context: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Sampler(SPLIT, context, 0)


def test_two_windows_suffice() -> None:
    sampler = Sampler(make_split([31]), 16, 0)
    assert sampler.windows == 1
    assert sampler.batch(5, 2).tokens.shape == (2, 16)
