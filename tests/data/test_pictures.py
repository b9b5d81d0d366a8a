"""Pictures as data: the digits, their tokens, batches of whole pictures, a loss in bits per dimension."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

import windtunnel as wt
from tests.data.test_sampler import END, make_split
from windtunnel.data.corpus import read_corpus
from windtunnel.data.pictures import LEVELS, digits
from windtunnel.data.sampler import Sampler
from windtunnel.data.shards import Dataset, prepare
from windtunnel.data.tokenizers import CharacterTokenizer, load_tokenizer
from windtunnel.errors import InputError
from windtunnel.evaluation.loss import evaluate_loss


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return prepare(read_corpus("digits"), context=64, cache=tmp_path_factory.mktemp("cache"))


def test_every_pixel_of_every_digit_is_there(dataset: Dataset) -> None:
    pixels = load_digits().data.astype(int)
    corpus = digits()
    assert len(corpus.documents) == 1797
    assert [[LEVELS.index(each) for each in document.text] for document in corpus.documents] == pixels.tolist()
    record = dataset.record
    assert record["tokenizer"] == "characters-18"
    assert record["bytes_per_token"] == 1.0
    kept = record["documents"] + record["heldout_documents"]
    assert kept + record["duplicates_dropped"] + record["near_duplicates_dropped"] == 1797
    assert record["heldout_documents"] > 100
    held = {name: pixels[int(name.split("-")[1])] for name in dataset.heldout.names}
    for index, name in enumerate(dataset.heldout.names):
        assert dataset.heldout.document(index).tolist() == [17, *held[name]]


def test_a_batch_is_whole_pictures(dataset: Dataset) -> None:
    sampler = Sampler(dataset.train, 64, data_seed=3)
    assert sampler.windows == dataset.record["documents"]
    first = [sampler.batch(0, 40), sampler.batch(1, 40)]
    for batch in first:
        assert batch.documents is None
        assert (batch.tokens[:, 0] == 17).all()
        assert int(batch.targets.max()) <= 16
        assert torch.equal(batch.tokens[:, 1:], batch.targets[:, :-1])
    starts = sampler.starts(0, sampler.windows)
    assert sorted(starts.tolist()) == dataset.train.offsets[:-1].tolist()
    assert not np.array_equal(starts, sampler.starts(1, sampler.windows))


def test_only_documents_of_one_window_each_are_cut_where_they_begin() -> None:
    equal = make_split([6] * 5)
    whole = Sampler(equal, 6, data_seed=0)
    assert whole.windows == 5
    assert sorted(whole.starts(0, 5).tolist()) == [0, 7, 14, 21, 28]
    assert (whole.batch(0, 5).tokens[:, 0] == END).all()
    assert Sampler(equal, 5, data_seed=0).windows == (35 - 5) // 5
    assert Sampler(make_split([6, 6, 7]), 6, data_seed=0).windows == (22 - 6) // 6


def test_bits_a_byte_are_bits_a_dimension(dataset: Dataset) -> None:
    """A model that begins as a uniform guess over 17 levels and the end of text."""
    model = wt.build(wt.recipes.get("axial_image")(vocab=18, width=16, layers=3, heads=2, context=64))
    losses = evaluate_loss(model, dataset.heldout, dataset.tokenizer.token_bytes, 64)
    assert losses.tokens.tolist() == [64] * dataset.record["heldout_documents"]
    assert losses.bits_per_byte == pytest.approx(math.log2(18), abs=1e-4)


def test_a_file_of_that_name_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("digits").write_text("a text that happens to have this name\n" * 20)
    assert read_corpus("digits").alphabet is None


def test_characters(tmp_path: Path) -> None:
    tokenizer = CharacterTokenizer("xyz")
    assert (tokenizer.vocab, tokenizer.end_of_text, tokenizer.label) == (4, 3, "characters-4")
    assert tokenizer.encode("zxy").tolist() == [2, 0, 1]
    assert tokenizer.decode([2, 3, 0]) == "zx"
    assert tokenizer.token_bytes.tolist() == [1, 1, 1, 0]
    tokenizer.save(tmp_path / "tok")
    again = load_tokenizer(tmp_path / "tok")
    assert again.fingerprint == tokenizer.fingerprint != CharacterTokenizer("xzy").fingerprint
    with pytest.raises(InputError, match="'a', which is not in the alphabet 'xyz'"):
        tokenizer.encode("xa")
    with pytest.raises(InputError, match="each of its characters once, got 'xx'"):
        CharacterTokenizer("xx")
