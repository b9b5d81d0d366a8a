"""Data read ahead: the same bits for any number of threads, stopped, resumed and gone back; sets in a run's results."""

import json
import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.training.conftest import EXECUTION, weights
from windtunnel.data.corpus import Corpus, Document
from windtunnel.data.mixture import Share, make_sampler
from windtunnel.data.sampler import Batch
from windtunnel.data.shards import Dataset, prepare
from windtunnel.errors import InputError
from windtunnel.training.ahead import Ahead
from windtunnel.training.interruption import Interrupted
from windtunnel.training.run import train

MIX = (Share(set="code", weight=0.2), Share(set="prose", weight=0.5), Share(set="tables", weight=0.3))
LAST = "step-40"


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    draw = random.Random(0)
    words = {"prose": "the wind lifts a wing", "code": "def if return None x", "tables": "0 1 22 333 4444"}
    documents = [
        Document(f"{name}{i}", " ".join(draw.choice(text.split()) for _ in range(draw.randint(30, 90))), name)
        for i in range(40)
        for name, text in words.items()
    ]
    return prepare(Corpus("sets", "made", documents), "bytes", 16, 400, tmp_path_factory.mktemp("cache"))


def trained(folder: Path) -> dict[str, torch.Tensor]:
    return weights(folder / "checkpoints" / LAST)


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("mixture", [(), MIX], ids=["plain", "mixed"])
def test_any_number_of_workers_gives_the_same_bits(
    make_spec: Callable[..., Any], make_settings: Callable[..., Any], sets: Dataset, tmp_path: Path, mixture: Any
) -> None:
    settings = make_settings(mixture=mixture)
    results = [
        train(make_spec(), settings, sets, tmp_path / str(workers), EXECUTION.replace(workers=workers))
        for workers in (0, 1, 2, 5)
    ]
    first = trained(tmp_path / "0")
    assert all(same(trained(tmp_path / str(workers)), first) for workers in (1, 2, 5))
    assert len({result.batch_hash for result in results}) == 1
    assert not any(thread.name.startswith("windtunnel-data") for thread in threading.enumerate())


def test_stopped_with_some_workers_and_resumed_with_others(
    make_spec: Callable[..., Any], make_settings: Callable[..., Any], sets: Dataset, tmp_path: Path
) -> None:
    settings = make_settings(mixture=MIX)
    train(make_spec(), settings, sets, tmp_path / "whole", EXECUTION.replace(workers=0))
    for workers, stop_after in ((2, 7), (0, 9), (3, 11)):
        asked = iter(range(1000))
        with pytest.raises(Interrupted):
            train(
                make_spec(),
                settings,
                sets,
                tmp_path / "parts",
                EXECUTION.replace(workers=workers),
                resume=True,
                stop=lambda asked=asked, after=stop_after: next(asked) >= after,
            )
    train(make_spec(), settings, sets, tmp_path / "parts", EXECUTION, resume=True)
    assert same(trained(tmp_path / "parts"), trained(tmp_path / "whole"))


class Recorded:
    """A sampler whose batches hold the sequences asked for, and who asked."""

    def __init__(self) -> None:
        self.readers: dict[range, list[str]] = {}

    def read(self, sequences: range) -> Batch:
        self.readers.setdefault(sequences, []).append(threading.current_thread().name)
        if sequences.start >= 900:
            raise OSError("the disk is gone")
        tokens = torch.tensor(list(sequences))[:, None]
        return Batch(tokens, tokens, None)


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_each_batch_is_read_once_and_ahead(workers: int) -> None:
    sampler = Recorded()
    ahead = Ahead(sampler, lambda step: range(4 * step, 4 * step + 4), workers)
    for step in range(30):
        assert ahead.take(step).tokens.flatten().tolist() == list(range(4 * step, 4 * step + 4))
    ahead.close()
    readers = [sampler.readers[range(4 * step, 4 * step + 4)] for step in range(30)]
    assert all(len(names) == 1 for names in readers)
    assert [names[0].startswith("windtunnel-data") for names in readers] == [False] + [workers > 0] * 29
    assert len(sampler.readers) <= 30 + 2 * workers


def test_a_change_of_plan_is_followed() -> None:
    shift = 0
    ahead = Ahead(Recorded(), lambda step: range(step + shift, step + shift + 1), 2)
    seen = [int(ahead.take(step).tokens) for step in range(5)]
    shift = 50  # what a rewind passes over
    seen += [int(ahead.take(step).tokens) for step in range(2, 6)]
    ahead.close()
    assert seen == [0, 1, 2, 3, 4, 52, 53, 54, 55]


def test_what_a_reader_meets_reaches_the_step() -> None:
    ahead = Ahead(Recorded(), lambda step: range(step, step + 1), 1)
    ahead.take(898)
    ahead.take(899)
    with pytest.raises(OSError, match="the disk is gone"):
        ahead.take(900)
    ahead.close()


def test_a_run_tells_the_loss_of_each_set(
    make_spec: Callable[..., Any], make_settings: Callable[..., Any], sets: Dataset, tmp_path: Path
) -> None:
    settings = make_settings(mixture=MIX)
    result = train(make_spec(), settings, sets, tmp_path, EXECUTION)
    last = result.horizons["1.0"]
    with np.load(tmp_path / "documents.npz") as stored:
        index, nats, tokens = (stored[f"h1.0/{name}"] for name in ("documents", "nats", "tokens"))
    names = np.array([sets.heldout.sets[i] for i in index])
    for name in ("code", "prose", "tables"):
        here = names == name
        assert last["sets"][name]["loss"] == pytest.approx(nats[here].sum() / tokens[here].sum())
        assert last["sets"][name]["tokens"] == tokens[here].sum()
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["sets"] == last["sets"]
    identity = json.loads((tmp_path / "run.json").read_text())
    assert [share["set"] for share in identity["identity"]["settings"]["mixture"]] == ["code", "prose", "tables"]
    assert identity["data"]["sets"]["prose"]["documents"] > 20
    assert result.data_seconds > 0
    heavier = make_settings(mixture=(*MIX[:2], Share(set="tables", weight=0.9)))
    with pytest.raises(InputError, match=r"cannot resume, this is another run: .*mixture"):
        train(make_spec(), heavier, sets, tmp_path, EXECUTION, resume=True)


def test_weights_change_what_is_learned(sets: Dataset) -> None:
    one = make_sampler(sets.train, 16, 0, (Share(set="code", weight=1),))
    text = sets.tokenizer.decode(one.batch(0, 50).tokens.flatten().tolist())
    assert set(text.split()) & {"def", "return", "None"}
    assert not set(text.split()) & {"wind", "wing", "333"}
