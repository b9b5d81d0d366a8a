"""Token shards: what is stored, what a damaged or half-written folder does, two builders at once."""

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tokenizers as hugging_face

from windtunnel.data import shards
from windtunnel.data.corpus import Corpus, Document, read_corpus
from windtunnel.data.shards import Dataset, open_dataset, prepare
from windtunnel.data.tokenizers import ByteTokenizer, JsonTokenizer
from windtunnel.errors import InputError, WorkError

SHORT = [document for document in read_corpus().documents if 1000 < len(document.text) < 8000]
SMALL = Corpus("small", "made for tests", SHORT[:40])


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def dataset(cache: Path) -> Dataset:
    return prepare(SMALL, 400, context=64, heldout_tokens=5000, cache=cache)


def folders(cache: Path) -> list[str]:
    return sorted(path.name for path in cache.iterdir())


def test_the_documents_come_back(dataset: Dataset) -> None:
    texts = {document.name: document.text for document in SMALL.documents}
    names = []
    for part in (dataset.train, dataset.heldout):
        assert part.offsets[-1] == part.tokens.size
        assert (part.tokens[part.offsets[:-1]] == part.end_of_text).all()
        assert int((part.tokens == part.end_of_text).sum()) == len(part.names)
        for index, name in enumerate(part.names):
            text = texts[name]
            assert dataset.tokenizer.decode(part.document(index)) == text
            assert part.bytes[index] == len(text.encode())
        names += part.names
    assert len(names) == len(set(names)) == len({document.text for document in SMALL.documents})


def test_the_record_says_what_is_there(dataset: Dataset) -> None:
    record = dataset.record
    assert record["train_tokens"] == dataset.train.tokens.size
    assert record["heldout_tokens"] == dataset.heldout.tokens.size
    assert record["fingerprint"] == SMALL.fingerprint
    assert record["vocab"] == dataset.tokenizer.vocab == 400
    assert record["tokenizer_fingerprint"] == dataset.tokenizer.fingerprint
    total = sum(int(part.bytes.sum()) for part in (dataset.train, dataset.heldout))
    tokens = record["train_tokens"] + record["heldout_tokens"] - record["documents"] - record["heldout_documents"]
    assert record["bytes_per_token"] == pytest.approx(total / tokens)
    json.dumps(record)


def test_second_time_it_is_only_opened(dataset: Dataset, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "build", None)
    again = prepare(SMALL, 400, context=64, heldout_tokens=5000, cache=cache)
    assert again.folder == dataset.folder
    assert isinstance(again.train.tokens, np.memmap)
    assert np.array_equal(open_dataset(dataset.folder, verify=False).train.tokens, dataset.train.tokens)


def test_other_settings_are_another_folder(dataset: Dataset, tmp_path: Path) -> None:
    changed = Corpus("small", "made", [*SMALL.documents[:-1], Document("new", "new text " * 50)])
    made = {
        prepare(corpus, tokenizer, 64, heldout, tmp_path).folder.name
        for corpus, tokenizer, heldout in [
            (SMALL, "bytes", 5000),
            (SMALL, 400, 4000),
            (SMALL, 300, 5000),
            (changed, 400, 5000),
        ]
    }
    assert len(made | {dataset.folder.name}) == 5


def test_rebuilding_gives_the_same_bytes(dataset: Dataset, tmp_path: Path) -> None:
    again = prepare(SMALL, 400, context=64, heldout_tokens=5000, cache=tmp_path)
    assert (again.folder / "meta.json").read_bytes() == (dataset.folder / "meta.json").read_bytes()


@pytest.mark.parametrize(
    "name", ["train-tokens.bin", "heldout-documents.npy", "meta.json", "tokenizer/sentencepiece.model"]
)
@pytest.mark.parametrize("how", ["flip", "cut", "delete"])
def test_damage_is_found_and_the_way_out_works(dataset: Dataset, tmp_path: Path, name: str, how: str) -> None:
    folder = tmp_path / dataset.folder.name
    shutil.copytree(dataset.folder, folder)
    path = folder / name
    data = bytearray(path.read_bytes())
    if how == "flip":
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    elif how == "cut":
        path.write_bytes(data[:-1])
    else:
        path.unlink()
    with pytest.raises(InputError, match=rf"shard .*{Path(name).name} is damaged .*delete the folder") as caught:
        prepare(SMALL, 400, context=64, heldout_tokens=5000, cache=tmp_path)
    assert "\n" not in str(caught.value)
    shutil.rmtree(folder)
    assert prepare(SMALL, 400, 64, 5000, tmp_path).record == dataset.record


@pytest.mark.parametrize("call", [0, 2, 4, 6, 8])
def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: int) -> None:
    real, calls = os.fsync, iter(range(1000))

    def full(handle: int) -> None:
        if next(calls) == call:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(handle)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(WorkError, match="no space left") as caught:
        prepare(SMALL, 300, 64, 5000, tmp_path)
    assert "\n" not in str(caught.value)
    assert folders(tmp_path) == []
    monkeypatch.undo()
    assert prepare(SMALL, 300, 64, 5000, tmp_path).record["vocab"] == 300


def test_an_interrupted_build_leaves_nothing(tmp_path: Path) -> None:
    def interrupt(stage: str, share: float) -> None:
        if stage == "encode":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(SMALL, "bytes", 64, 5000, tmp_path, progress=interrupt)
    assert folders(tmp_path) == []


def test_a_cache_that_cannot_be_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot be written.*WINDTUNNEL_CACHE"):
        prepare(SMALL, "bytes", 64, 5000, tmp_path / "file")


def test_the_environment_names_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WINDTUNNEL_CACHE", str(tmp_path / "named"))
    assert prepare(SMALL, "bytes", 64, 5000).folder.parent == tmp_path / "named"


BUILD = """
import sys
from pathlib import Path
from windtunnel.data.corpus import read_corpus
from windtunnel.data.shards import prepare
made = prepare(read_corpus(sys.argv[1]), "bytes", 64, 5000, Path(sys.argv[2]))
print(made.folder.name, made.train.tokens.size)
"""


def test_two_processes_build_at_once(tmp_path: Path) -> None:
    text, cache = tmp_path / "text.txt", tmp_path / "cache"
    text.write_text("\n".join(document.text for document in SMALL.documents), encoding="utf-8")
    command = [sys.executable, "-c", BUILD, str(text), str(cache)]
    builders = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(2)]
    outputs = [builder.communicate(timeout=60)[0] for builder in builders]
    assert [builder.returncode for builder in builders] == [0, 0]
    assert outputs[0] == outputs[1]
    assert folders(cache) == [outputs[0].decode().split()[0]]


def test_the_slower_builder_takes_what_is_there(dataset: Dataset, tmp_path: Path) -> None:
    """The other process finishes while this one is still encoding."""
    folder = tmp_path / dataset.folder.name

    def other(stage: str, share: float) -> None:
        if stage == "encode" and not folder.exists():
            shutil.copytree(dataset.folder, folder)

    made = prepare(SMALL, 400, 64, 5000, tmp_path, progress=other)
    assert made.record == dataset.record
    assert folders(tmp_path) == [folder.name]


def test_remains_of_killed_builds_are_removed_after_a_day(dataset: Dataset, tmp_path: Path) -> None:
    old, new = (tmp_path / f".{dataset.folder.name}.{name}" for name in ("old", "new"))
    for left in (old, new):
        left.mkdir()
    os.utime(old, (0, 0))
    prepare(SMALL, 400, 64, 5000, tmp_path)
    assert folders(tmp_path) == [new.name, dataset.folder.name]


def test_a_tokenizer_that_changes_text_is_refused(tmp_path: Path) -> None:
    tokenizer = hugging_face.Tokenizer(hugging_face.models.BPE())
    tokenizer.normalizer = hugging_face.normalizers.Lowercase()
    tokenizer.pre_tokenizer = hugging_face.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = hugging_face.decoders.ByteLevel()
    alphabet = hugging_face.pre_tokenizers.ByteLevel.alphabet()
    trainer = hugging_face.trainers.BpeTrainer(vocab_size=256, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(["abc"], trainer)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(InputError, match=r"json-257 is not lossless: .* at byte \d+.*bits per byte cannot be computed"):
        prepare(SMALL, tmp_path / "tokenizer.json", 64, 5000, tmp_path / "cache")
    assert folders(tmp_path / "cache") == []


def test_a_given_tokenizer_is_kept_with_the_data(tmp_path: Path) -> None:
    tokenizer = hugging_face.Tokenizer(hugging_face.models.BPE())
    tokenizer.pre_tokenizer = hugging_face.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = hugging_face.decoders.ByteLevel()
    alphabet = hugging_face.pre_tokenizers.ByteLevel.alphabet()
    trainer = hugging_face.trainers.BpeTrainer(vocab_size=70_000, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator([document.text for document in SMALL.documents[:5]], trainer)
    made = prepare(SMALL, JsonTokenizer(tokenizer.to_str()), 64, 5000, tmp_path)
    expected = tokenizer.encode(SMALL.documents[3].text).ids
    part = made.train if SMALL.documents[3].name in made.train.names else made.heldout
    assert part.document(part.names.index(SMALL.documents[3].name))[1:].tolist() == expected
    assert isinstance(open_dataset(made.folder).tokenizer, JsonTokenizer)


def test_wide_vocabularies_take_four_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wide = ByteTokenizer()
    monkeypatch.setattr(type(wide), "vocab", 70_000)
    made = prepare(SMALL, wide, 64, 5000, tmp_path)
    assert made.train.tokens.dtype == np.uint32


def test_too_little_text_for_the_context(cache: Path) -> None:
    with pytest.raises(InputError, match=r"training tokens; context 10000000 needs at least 20000000"):
        prepare(SMALL, 400, 10_000_000, 5000, cache)


def test_small_corpora_get_bytes_and_monotonous_ones_too(tmp_path: Path) -> None:
    assert prepare(SMALL, None, 64, 1000, tmp_path).tokenizer.kind == "bytes"
    monotonous = Corpus("a", "a", [Document(str(i), "a" * (1000 + i)) for i in range(1100)])
    assert prepare(monotonous, None, 64, 1000, tmp_path).tokenizer.kind == "bytes"
    with pytest.raises(InputError, match="use the tokenizer 'bytes'"):
        prepare(monotonous, 1024, 64, 1000, tmp_path)
