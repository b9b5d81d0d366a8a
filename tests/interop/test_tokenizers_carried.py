"""Tokenizers come along and give the same ids, in and out."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
import tokenizers
import torch
from transformers import AutoTokenizer

import windtunnel as wt
from tests.interop.test_gpt_neo import neo
from windtunnel.data.corpus import read_corpus
from windtunnel.data.tokenizers import load_tokenizer, train_sentencepiece
from windtunnel.errors import InputError
from windtunnel.inference.generate import ids_of
from windtunnel.interop.exporting import export_run
from windtunnel.interop.importing import import_folder
from windtunnel.interop.tokenizers import as_json

SOURCE = [document.text for document in read_corpus().documents[:12]]
TEXTS = [SOURCE[0][:3000], "naïve  한국 \t tabs\n\n", " lead", "aaaa bbb", "x" * 50, "0123"]


@pytest.fixture(scope="module")
def pieces() -> bytes:
    """A SentencePiece model as Llama's: BPE, byte fallback, a space before every text."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(line for text in SOURCE for line in text.split("\n") if line.strip()),
        model_writer=model,
        vocab_size=400,
        model_type="bpe",
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        num_threads=1,
        minloglevel=2,
    )
    return model.getvalue()


def byte_level() -> Any:
    made = tokenizers.Tokenizer(tokenizers.models.BPE())
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator(SOURCE, trainer)
    return made


def imported(folder: Path) -> Any:
    import_folder(folder, folder.with_name("run"))
    return wt.load(folder.with_name("run"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    neo(vocab_size=420).save_pretrained(tmp_path / "neo")
    return tmp_path / "neo"


def test_a_folder_without_one(folder: Path) -> None:
    assert imported(folder).tokenizer is None


@pytest.mark.parametrize("form", ["json", "merges"])
def test_byte_level(form: str, folder: Path) -> None:
    made = byte_level()
    if form == "json":
        made.save(str(folder / "tokenizer.json"))
    else:
        made.model.save(str(folder))
    run = imported(folder)
    for text in TEXTS:
        assert run.tokenizer.encode(text).tolist() == made.encode(text).ids
        assert run.tokenizer.decode(made.encode(text).ids) == text
    export_run(folder.with_name("run"), folder.with_name("out"))
    there = AutoTokenizer.from_pretrained(folder.with_name("out"))
    assert [there(text)["input_ids"] for text in TEXTS] == [made.encode(text).ids for text in TEXTS]


def test_sentencepiece(pieces: bytes, folder: Path) -> None:
    """The ids of the library itself; the space that it puts before a text is known, and does not count as a loss."""
    (folder / "tokenizer.model").write_bytes(pieces)
    run, library = imported(folder), sentencepiece.SentencePieceProcessor(model_proto=pieces)
    assert (run.tokenizer.prefix, run.tokenizer.end_of_text) == (b" ", library.eos_id())
    assert run.tokenizer.begin_of_text == library.bos_id() != library.eos_id()
    for text in TEXTS:
        assert run.tokenizer.encode(text).tolist() == library.encode(text)
        assert run.tokenizer.decode(library.encode(text)) == " " + text


def test_ours_are_read_by_the_library_there(pieces: bytes, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(pieces)
    for ours in (train_sentencepiece(SOURCE, 400), load_tokenizer(tmp_path)):
        found = as_json(ours)
        assert found is not None
        there = tokenizers.Tokenizer.from_str(found[0])
        assert [there.token_to_id(spelled) for spelled in found[1:]] == [ours.begin_of_text, ours.end_of_text]
        for text in [*TEXTS, *SOURCE[:3]]:
            ids = there.encode(text, add_special_tokens=False).ids
            assert ids == ours.encode(text).tolist()
            assert there.decode(ids) == text


def test_texts_begin_and_end_as_they_do_there(folder: Path) -> None:
    """A template's first token begins a text, every id that the folder calls an end ends it, in a round trip too."""
    made = byte_level()
    made.add_special_tokens(["<s>", "<turn>"])
    begin, turn, end = (made.token_to_id(name) for name in ("<s>", "<turn>", "<|endoftext|>"))
    made.post_processor = tokenizers.processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", begin)])
    made.save(str(folder / "tokenizer.json"))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [end, turn]}))
    run = imported(folder)
    assert list(ids_of(run.tokenizer, "def f")) == made.encode("def f").ids
    assert {begin, end, turn} <= run.tokenizer.stops
    export_run(folder.with_name("run"), folder.with_name("out"))
    assert AutoTokenizer.from_pretrained(folder.with_name("out"))("def f")["input_ids"] == made.encode("def f").ids
    import_folder(folder.with_name("out"), folder.with_name("again"))
    assert wt.load(folder.with_name("again")).tokenizer.stops == run.tokenizer.stops


@pytest.mark.parametrize("name", ["<|endoftext|>", "<turn>", "x"])
def test_every_end_ends_a_text(name: str, folder: Path) -> None:
    made = byte_level()
    made.add_special_tokens(["<turn>"])
    made.save(str(folder / "tokenizer.json"))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [made.token_to_id("<turn>")]}))
    run = imported(folder)
    chosen = made.token_to_id(name)
    with torch.no_grad():  # a table whose largest row is met by every text
        run.model.embedding.weight.zero_()[chosen] = 1.0
        run.model.norm.bias.fill_(1.0)
    ids = wt.generate(run, [1, 2], tokens=3, temperature=0)
    assert ids == [chosen] * (3 if name == "x" else 1)


def test_what_is_no_model(folder: Path) -> None:
    (folder / "tokenizer.model").write_bytes(b"no model")
    with pytest.raises(InputError, match=r"tokenizer\.model is not a SentencePiece model"):
        import_folder(folder, folder.with_name("run"))
