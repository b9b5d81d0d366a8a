"""Tokenizers: nothing is lost, nothing is executed, and the same text gives the same model."""

import json
import random
from pathlib import Path

import numpy as np
import pytest
import tokenizers as hugging_face
from hypothesis import given, settings
from hypothesis import strategies as st

from windtunnel.data.corpus import read_corpus
from windtunnel.data.tokenizers import (
    ByteTokenizer,
    JsonTokenizer,
    Tokenizer,
    choose_vocabulary,
    load_tokenizer,
    train_sentencepiece,
    trained,
)
from windtunnel.errors import InputError

SOURCE = [document.text for document in read_corpus().documents[:15]]
TRICKY = [
    "",
    " ",
    "   lead and trail   ",
    "a\tb\r\nc\rd\n\n",
    "\0nul\0",
    "".join(map(chr, range(32))),
    "\x7f\x80\x85\xa0",
    "한국어 문장입니다.",
    "emoji 😀👩‍👩‍👧 \u200b\ufeff",
    "\u2581 \u2581\u2581x\u2581",
    "\ufffd \u2047 \u2585 ⁇",
    "<0x0A><unk><s></s><|endoftext|>",
    "123.5 0007",
    "\u2028\u2029\x1c\x1d",
    "é e\u0301 ﬁ Ⅷ",
    chr(0x10FFFF),
]


def byte_level_json(**options: object) -> str:
    """A GPT-2-like tokenizer.json, made by the library `tokenizers` itself."""
    tokenizer = hugging_face.Tokenizer(hugging_face.models.BPE())
    tokenizer.pre_tokenizer = hugging_face.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = hugging_face.decoders.ByteLevel()
    if options.get("lowercase"):
        tokenizer.normalizer = hugging_face.normalizers.Lowercase()
    special = [str(options.get("special", "<|endoftext|>"))]
    alphabet = hugging_face.pre_tokenizers.ByteLevel.alphabet()
    trainer = hugging_face.trainers.BpeTrainer(
        vocab_size=600, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(SOURCE[:10], trainer)
    return str(tokenizer.to_str())


@pytest.fixture(scope="module")
def every() -> dict[str, Tokenizer]:
    return {
        "bytes": ByteTokenizer(),
        "sentencepiece": train_sentencepiece(SOURCE, 600),
        "json": JsonTokenizer(byte_level_json()),
    }


KINDS = ["bytes", "sentencepiece", "json"]


def check_round_trip(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert tokenizer.decode_bytes(ids) == text.encode()
    assert int(tokenizer.token_bytes[ids].sum()) == len(text.encode())
    assert tokenizer.end_of_text not in ids


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("text", TRICKY)
def test_tricky_texts_survive(every: dict[str, Tokenizer], kind: str, text: str) -> None:
    check_round_trip(every[kind], text)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=100, deadline=None)
@given(text=st.text(max_size=60) | st.text(st.sampled_from("\u2581 \t\n\0<0x>1A한😀"), max_size=40))
def test_any_text_survives(every: dict[str, Tokenizer], kind: str, text: str) -> None:
    check_round_trip(every[kind], text)


@pytest.mark.parametrize("kind", KINDS)
def test_source_text_survives_in_batches(every: dict[str, Tokenizer], kind: str) -> None:
    encoded = every[kind].encode_documents(SOURCE)
    assert [every[kind].decode(ids) for ids in encoded] == SOURCE
    assert all(np.array_equal(ids, every[kind].encode(text)) for ids, text in zip(encoded[:5], SOURCE, strict=False))


@settings(deadline=None)
@given(st.binary(max_size=60))
def test_bytes_hold_any_bytes(data: bytes) -> None:
    tokenizer = ByteTokenizer()
    assert tokenizer.encode(data).tolist() == list(data)
    assert tokenizer.decode_bytes(tokenizer.encode(data)) == data


@pytest.mark.parametrize("kind", KINDS[1:])
def test_invalid_utf8_is_refused(every: dict[str, Tokenizer], kind: str) -> None:
    with pytest.raises(InputError, match="not UTF-8 at offset 2"):
        every[kind].encode(b"ab\xff")
    assert every[kind].decode(every[kind].encode("한".encode())) == "한"


@pytest.mark.parametrize("kind", KINDS)
def test_lone_surrogates_and_foreign_ids_are_refused(every: dict[str, Tokenizer], kind: str) -> None:
    with pytest.raises(InputError, match=r"U\+D800 at character 1"):
        every[kind].encode("a\ud800")
    with pytest.raises(InputError, match="token ids must be from 0 to"):
        every[kind].decode([every[kind].vocab])
    with pytest.raises(InputError, match="token ids must be from 0 to"):
        every[kind].decode([-1])


@pytest.mark.parametrize("kind", KINDS)
def test_saved_and_loaded_is_the_same(every: dict[str, Tokenizer], kind: str, tmp_path: Path) -> None:
    every[kind].save(tmp_path / "tokenizer")
    back = load_tokenizer(tmp_path / "tokenizer")
    assert type(back) is type(every[kind])
    assert (back.fingerprint, back.vocab, back.end_of_text) == (
        every[kind].fingerprint,
        every[kind].vocab,
        every[kind].end_of_text,
    )
    assert np.array_equal(back.encode(SOURCE[0]), every[kind].encode(SOURCE[0]))


def test_sentencepiece_has_palms_properties(every: dict[str, Tokenizer]) -> None:
    tokenizer = every["sentencepiece"]
    pieces = [tokenizer.decode_bytes([index]) for index in range(tokenizer.vocab)]
    assert tokenizer.vocab == 600
    assert len(set(pieces[2:258])) == 256  # one piece for each byte
    assert [p for p in (tokenizer.decode([i]) for i in tokenizer.encode("123.5")) if p] == ["1", "2", "3", ".", "5"]
    assert not any(len(piece) > 1 and any(48 <= byte <= 57 for byte in piece) for piece in pieces)
    assert b"        " in pieces  # indentation is worth pieces of its own


def test_sentencepiece_training_is_deterministic() -> None:
    assert train_sentencepiece(SOURCE, 400).fingerprint == train_sentencepiece(SOURCE, 400).fingerprint


def test_the_largest_possible_vocabulary_is_possible() -> None:
    text = SOURCE[0][:2000]
    with pytest.raises(InputError, match="more than this corpus can fill") as error:
        train_sentencepiece([text], 50_000)
    largest = int(str(error.value).split()[-1])
    assert train_sentencepiece([text], largest).vocab == largest
    with pytest.raises(InputError, match=f"largest possible is {largest}"):
        train_sentencepiece([text], largest + 1)


def test_a_large_corpus_is_sampled_and_what_was_not_seen_survives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trained, "SAMPLE_BYTES", 50_000)
    monkeypatch.setattr(trained, "SAMPLE_BYTES_PER_PIECE", 1)
    tokenizer = train_sentencepiece([*SOURCE, "한국어"], 300)
    assert tokenizer.fingerprint == train_sentencepiece(["한국어", *SOURCE[::-1]], 300).fingerprint
    assert tokenizer.fingerprint != train_sentencepiece(SOURCE[:5], 300).fingerprint
    check_round_trip(tokenizer, "한국어")


def test_many_scripts_fit_a_small_vocabulary() -> None:
    text = "".join(random.Random(0).choices([chr(0xAC00 + i) for i in range(3000)], k=20_000))
    check_round_trip(train_sentencepiece([text, *SOURCE[:3]], 500), text)


def test_a_vocabulary_that_cannot_be_filled() -> None:
    with pytest.raises(InputError, match="vocab 5000 is more than this corpus can fill, and so is every other"):
        train_sentencepiece(["abc abd aaa " * 10], 5000)
    with pytest.raises(InputError, match="at least 288"):
        train_sentencepiece(SOURCE, 100)
    with pytest.raises(InputError, match="no text to learn pieces from"):
        train_sentencepiece(["\n\n"], 300)


def test_json_agrees_with_its_own_library(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(byte_level_json(), encoding="utf-8")
    ours = load_tokenizer(tmp_path / "tokenizer.json")
    theirs = hugging_face.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    for text in [*SOURCE[:5], *(text for text in TRICKY if "<|endoftext|>" not in text)]:
        assert ours.encode(text).tolist() == theirs.encode(text).ids
    assert ours.end_of_text == theirs.token_to_id("<|endoftext|>")


def test_json_without_an_end_of_text_gets_one() -> None:
    tokenizer = JsonTokenizer(byte_level_json(special="[PAD]"))
    assert tokenizer.end_of_text == tokenizer.vocab - 1
    assert tokenizer.decode_bytes([tokenizer.end_of_text]) == b""


def test_gpt2_files(tmp_path: Path) -> None:
    model = json.loads(byte_level_json())["model"]
    (tmp_path / "vocab.json").write_text(json.dumps(model["vocab"]), encoding="utf-8")
    merges = "\n".join(" ".join(pair) for pair in model["merges"])
    (tmp_path / "merges.txt").write_text(f"#version: 0.2\n{merges}\n", encoding="utf-8")
    tokenizer = load_tokenizer(tmp_path)
    oracle = hugging_face.ByteLevelBPETokenizer(str(tmp_path / "vocab.json"), str(tmp_path / "merges.txt"))
    for text in SOURCE[:5]:
        assert tokenizer.encode(text).tolist() == oracle.encode(text).ids
    assert tokenizer.end_of_text == model["vocab"]["<|endoftext|>"]
    check_round_trip(tokenizer, TRICKY[11])


def test_llama_like_json_knows_its_bytes() -> None:
    vocabulary = (
        {"<unk>": 0, "<s>": 1, "</s>": 2} | {f"<0x{b:02X}>": 3 + b for b in range(256)} | {"\u2581": 259, "a": 260}
    )
    model = hugging_face.models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>", byte_fallback=True)
    tokenizer = hugging_face.Tokenizer(model)
    tokenizer.normalizer = hugging_face.normalizers.Replace(" ", "\u2581")
    parts = [
        hugging_face.decoders.Replace("\u2581", " "),
        hugging_face.decoders.ByteFallback(),
        hugging_face.decoders.Fuse(),
    ]
    tokenizer.decoder = hugging_face.decoders.Sequence(parts)
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    ours = JsonTokenizer(tokenizer.to_str())
    check_round_trip(ours, "a a 한 \n")
    assert ours.end_of_text == 2


@pytest.mark.parametrize("name", ["tokenizer.json", "nothing"])
def test_bad_tokenizer_files(tmp_path: Path, name: str) -> None:
    if name == "tokenizer.json":
        (tmp_path / name).write_text("{}")
        with pytest.raises(InputError, match=r"is not a tokenizer\.json"):
            load_tokenizer(tmp_path / name)
    with pytest.raises(InputError, match="tokenizer"):
        load_tokenizer(tmp_path / "nothing")


def test_damaged_saved_tokenizer(tmp_path: Path) -> None:
    train_sentencepiece(SOURCE[:5], 300).save(tmp_path)
    path = tmp_path / "sentencepiece.model"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match="damaged"):
        load_tokenizer(tmp_path)


def test_vocabulary_follows_the_size() -> None:
    assert [choose_vocabulary(size) for size in (10, 999_999, 1_000_000, 12_000_000, 10**8, 10**10)] == [
        None,
        None,
        1024,
        1024,
        8192,
        32_768,
    ]
