"""Reading and dividing corpora, against plain Python and against files written by other libraries."""

import gzip
import json
import sysconfig
from collections import Counter
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from windtunnel.data.corpus import Corpus, Document, read_corpus
from windtunnel.data.cutting import cut
from windtunnel.data.division import split
from windtunnel.data.overlap import measure_overlap
from windtunnel.errors import InputError

RECORDS = [
    {"text": f"document {i}\n\ttab ✓", "meta": {"pile_set_name": "even" if i % 2 == 0 else "odd"}} for i in range(12)
]
TEXTS = [record["text"] for record in RECORDS]


def write_lines(path: Path) -> Path:
    data = "\n".join(json.dumps(record) for record in RECORDS).encode() + b"\n\n"
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(data, mtime=0))
    elif path.suffix == ".zst":
        half = len(data) // 2  # two frames, as The Pile's files have many
        path.write_bytes(zstandard.compress(data[:half]) + zstandard.compress(data[half:]))
    else:
        path.write_bytes(data)
    return path


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.jsonl.zst"])
def test_json_lines(tmp_path: Path, name: str) -> None:
    corpus = read_corpus([write_lines(tmp_path / name)])
    assert [document.text for document in corpus.documents] == TEXTS
    assert [document.set for document in corpus.documents][:3] == ["even", "odd", "even"]
    assert corpus.bytes == sum(len(text.encode()) for text in TEXTS)


@pytest.mark.parametrize("field", ["text", "body.inner"])
def test_parquet(tmp_path: Path, field: str) -> None:
    nested = field != "text"
    columns = {"body": [{"inner": text} for text in TEXTS]} if nested else {"text": TEXTS, "n": [1] * len(TEXTS)}
    pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "a.parquet")
    assert [document.text for document in read_corpus([tmp_path / "a.parquet"], field).documents] == TEXTS


def test_parquet_names_its_fields(tmp_path: Path) -> None:
    pyarrow.parquet.write_table(pyarrow.table({"content": ["a"], "n": [1]}), tmp_path / "a.parquet")
    with pytest.raises(InputError, match=r"no text field 'text'.*content, n"):
        read_corpus([tmp_path / "a.parquet"])
    with pytest.raises(InputError, match=r"row 1: field 'n' must be text, not int"):
        read_corpus([tmp_path / "a.parquet"], "n")


def test_folder_is_read_in_order_without_binary_or_hidden_files(tmp_path: Path) -> None:
    for i in range(11):
        (tmp_path / "sub").mkdir(exist_ok=True)
        (tmp_path / "sub" / f"{i:02}.txt").write_bytes(f"text {i}\r\n".encode())
    (tmp_path / "z.png").write_bytes(b"\x89PNG\r\n\0\0\0\1")
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "x").write_text("hidden")
    corpus = read_corpus([tmp_path])
    assert [document.text for document in corpus.documents] == [f"text {i}\r\n" for i in range(11)]
    assert "1 binary files skipped" in corpus.source
    assert read_corpus([tmp_path]).fingerprint == corpus.fingerprint


def test_single_text_is_cut_and_nothing_is_lost(tmp_path: Path) -> None:
    text = "".join(f"line {i} ✓\n" for i in range(40_000))
    path = tmp_path / "a.txt"
    path.write_bytes(text.encode())
    documents = read_corpus([path]).documents
    assert "".join(document.text for document in documents) == text
    assert all(len(d.text.encode()) <= 8192 and d.text.endswith("\n") for d in documents)
    assert min(len(d.text.encode()) for d in documents[:-1]) > 8192 - 40


@settings(deadline=None)
@given(st.text(alphabet=st.sampled_from("ab\n😀é"), max_size=200), st.integers(1, 50))
def test_cut_is_a_partition(text: str, size: int) -> None:
    pieces = list(cut(text, size))
    assert "".join(pieces) == text
    assert all(len(piece.encode()) <= max(size, 4) for piece in pieces)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.txt", b"", "is empty"),
        ("a.txt", b" \n\n", "is empty"),
        ("a.txt", b"abc\0\0\0\0\0", "is binary"),
        ("a.txt", b"abc\xff def", r"byte 0xff at offset 3"),
        ("a.jsonl", b'{"text": "a"}\n{"text": \n', r"a\.jsonl:2 is not JSON"),
        ("a.jsonl", b'{"text": "a"}\n["a"]\n', r"a\.jsonl:2 must be a JSON object"),
        (
            "a.jsonl",
            b'{"content": "a", "meta": {"x": 1}}\n',
            r"a\.jsonl:1: there is no text field 'text'.*content, meta\.x",
        ),
        ("a.jsonl", b'{"text": 3}\n', r"a\.jsonl:1: field 'text' must be text, not int"),
        ("a.jsonl", b'{"text": "\\ud800"}\n', r"a\.jsonl:1: .*lone surrogate"),
        ("a.jsonl", b'{"text": "\xff"}\n', r"a\.jsonl:1 is not UTF-8"),
        ("a.jsonl", b"[" * 100_000 + b"\n", r"a\.jsonl:1 is not JSON"),
        ("a.jsonl.gz", b"not gzip", "not a whole gzip file"),
        ("a.jsonl.gz", gzip.compress(b'{"text": "a"}\n' * 500, mtime=0)[:-12], "not a whole gzip file"),
        ("a.jsonl.zst", b"not zstandard", "not a whole Zstandard file"),
        ("a.parquet", b"not parquet", "not a readable Parquet file"),
    ],
)
def test_bad_input_is_one_line(tmp_path: Path, name: str, data: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError, match=message) as caught:
        read_corpus([tmp_path / name])
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_links_to_folders_are_not_followed(tmp_path: Path) -> None:
    for i in range(11):
        (tmp_path / f"{i}.txt").write_text(f"text {i}")
    (tmp_path / "again").symlink_to(tmp_path)
    assert len(read_corpus(tmp_path).documents) == 11


def test_missing_path_and_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        read_corpus([tmp_path / "none.txt"])
    with pytest.raises(InputError, match="holds no text files"):
        read_corpus([tmp_path])


def test_default_is_the_source_of_the_standard_library() -> None:
    corpus = read_corpus()
    root = Path(sysconfig.get_path("stdlib"))
    names = {document.name for document in corpus.documents}
    assert {"argparse.py", "json/decoder.py", "unittest/case.py"} <= names
    assert not any("test" in name.split("/")[:-1] or "site-packages" in name for name in names)
    assert all((root / d.name).read_bytes().decode() == d.text for d in corpus.documents[::50])
    assert corpus.fingerprint == read_corpus().fingerprint == read_corpus("stdlib").fingerprint


def test_the_standard_library_is_a_set_beside_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my.txt").write_text("mine\n")
    corpus = read_corpus(["code=stdlib", *[f"english={tmp_path / 'my.txt'}"] * 2])
    assert corpus.name == "code+english"
    by_set = Counter(document.set for document in corpus.documents)
    assert by_set["english"] == 2 < by_set["code"]
    monkeypatch.chdir(tmp_path)
    Path("stdlib").write_text("a file of this name\n" * 20)  # what is there goes first
    assert {document.text for document in read_corpus("stdlib").documents} == {"a file of this name\n"}
    assert len(list(read_corpus().documents)) == by_set["code"]  # but not where no data is named


def make_corpus(texts: list[str]) -> Corpus:
    return Corpus("made", "made", [Document(f"d{i}", text) for i, text in enumerate(texts)])


def test_division_is_disjoint_and_ignores_order() -> None:
    corpus = make_corpus([f"words {i} " * 20 for i in range(200)] + ["words 3 " * 20])
    division = split(corpus, 2000)
    train, heldout = ({d.text for d in part} for part in (division.train, division.heldout))
    assert division.duplicates_dropped == 1
    assert not train & heldout
    assert len(train) + len(heldout) == 200
    assert 2000 <= sum(map(len, heldout)) < 2300
    backwards = Corpus("made", "made", corpus.documents[:200][::-1])
    assert split(backwards, 2000).heldout == division.heldout


def test_never_more_than_a_tenth_is_held_out() -> None:
    division = split(make_corpus([f"{i:05} " * 10 for i in range(300)]), 10**9)
    assert 0.08 < len(division.heldout) / 300 <= 0.1


def test_one_document_cannot_be_divided() -> None:
    with pytest.raises(InputError, match="needs at least two"):
        split(make_corpus(["same"] * 20), 100)


def test_near_copies_of_training_are_left_out_of_the_held_out_text() -> None:
    table = [f"code {i} maps to {i * 7 % 256}" for i in range(300)]
    copies = ["\n".join([f"header {i}", *table]) for i in range(30)]
    unique = ["\n".join(f"{i} {j} {i * j % 91} of {i + j}" for j in range(300)) for i in range(60)]
    division = split(make_corpus(copies + unique), 60_000)
    assert division.near_duplicates_dropped > 0
    assert not any(document.text.startswith("header") for document in division.heldout)


def grams(text: str, words: int) -> list[tuple[bytes, ...]]:
    split_words = text.encode().split()
    return [tuple(split_words[i : i + words]) for i in range(len(split_words) - words + 1)]


@settings(deadline=None)
@given(
    st.lists(st.text(st.sampled_from("ab \n\té"), max_size=60), max_size=6),
    st.lists(st.text("ab \n", max_size=60), max_size=4),
)
def test_overlap_equals_a_search_by_hand(train: list[str], heldout: list[str]) -> None:
    known = {gram for text in train for gram in grams(text, 3)}
    measured = measure_overlap(train, heldout, words=3)
    assert measured.total == tuple(len(grams(text, 3)) for text in heldout)
    assert measured.shared == tuple(sum(gram in known for gram in grams(text, 3)) for text in heldout)


def test_overlap_on_source_text_equals_a_search_by_hand() -> None:
    texts = [document.text for document in read_corpus().documents[:60]]
    known = Counter(gram for text in texts[10:] for gram in grams(text, 13))
    measured = measure_overlap(texts[10:], texts[:10])
    assert measured.shared == tuple(sum(gram in known for gram in grams(text, 13)) for text in texts[:10])
    assert sum(measured.shared) > 0
