"""`windtunnel tokenizer`: train a vocabulary, look into one."""

import os
import shutil
import tempfile
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from windtunnel.cli.group import Group
from windtunnel.cli.options import Data, Json, TextField, count
from windtunnel.cli.screen import Screen, facts, table
from windtunnel.errors import InputError

if TYPE_CHECKING:
    from windtunnel.data.tokenizers import Tokenizer

_MEASURED = 1000  # documents, of which bytes per token are told
_TRAIN_EXAMPLE = """Examples:

windtunnel tokenizer train --data my.txt --vocab 32k --out tok

windtunnel tokenizer train --data pile.jsonl.zst --vocab 256k --out tok

Of a large corpus a sample is used, up to 256 MB.

The folder is what --tokenizer takes.
"""
_SHOW_EXAMPLE = """Examples:

windtunnel tokenizer show tok

windtunnel tokenizer show tok --text "def main():"
"""


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    room = typer.Typer(
        name="tokenizer", cls=Group, help="Train a vocabulary on a text, or look into one.", no_args_is_help=True
    )
    room.command("train", epilog=_TRAIN_EXAMPLE)(train)
    room.command("show", epilog=_SHOW_EXAMPLE)(show)
    app.add_typer(room)


def train(
    vocab: Annotated[
        int, typer.Option(metavar="COUNT", parser=count, help="How many tokens, e.g. 32k; 256 are bytes.")
    ],
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="The folder to make.")],
    data: Data = [],  # noqa: B006
    text_field: TextField = "text",
    as_json: Json = False,
) -> None:
    """Train a lossless SentencePiece vocabulary: whitespace kept, digits single, bytes as fall-back."""
    from windtunnel.data.corpus import read_corpus
    from windtunnel.data.division import Texts
    from windtunnel.data.tokenizers import train_sentencepiece

    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out}: exists and is not empty; name a new folder")
    corpus = read_corpus(data or None, text_field)
    texts = Texts(corpus.documents)
    tokenizer = train_sentencepiece(texts, vocab)
    _save(tokenizer, out)
    sample = list(islice(texts, min(_MEASURED, max(1, len(corpus.survey.sizes) // 100))))
    tokens = sum(len(ids) for ids in tokenizer.encode_documents(sample))
    per_token = sum(len(text.encode()) for text in sample) / max(tokens, 1)
    record = {**_record(tokenizer), "folder": str(out), "data": corpus.source, "bytes_per_token": per_token}
    Screen(as_json).finish(record, facts(_words(record)))


def show(
    path: Annotated[
        Path, typer.Argument(metavar="TOKENIZER", help="A tokenizer's or a run's folder, or a tokenizer.json.")
    ],
    text: Annotated[str | None, typer.Option(help="A text to cut into tokens.")] = None,
    as_json: Json = False,
) -> None:
    """Tell what a tokenizer is, and how it cuts a text."""
    from windtunnel.data.tokenizers import load_tokenizer

    inside = path / "tokenizer"
    tokenizer = load_tokenizer(inside if (path / "run.json").is_file() and inside.is_dir() else path)
    record = {**_record(tokenizer), "folder": str(path)}
    screen = Screen(as_json)
    parts: list[Any] = [facts(_words(record))]
    if text is not None:
        ids = tokenizer.encode(text)
        pieces = [tokenizer.decode_bytes([token]) for token in ids]
        record |= {"text": text, "ids": ids.tolist(), "pieces": [piece.decode("utf-8", "replace") for piece in pieces]}
        rows = [[str(token), repr(piece)[1:]] for token, piece in zip(ids.tolist(), pieces, strict=True)]
        parts.append(table(["id", "bytes"], rows, numeric=(0,)))
    screen.finish(record, *parts)


def _save(tokenizer: "Tokenizer", out: Path) -> None:
    """Write the folder under another name and rename it, so that it is whole or absent."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    except OSError as error:
        raise InputError(f"{out}: cannot be written: {error.strerror}") from error
    try:
        tokenizer.save(partial)
        partial.chmod(0o755)
        os.replace(partial, out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _record(tokenizer: "Tokenizer") -> dict[str, Any]:
    return {
        "kind": tokenizer.kind,
        "vocab": tokenizer.vocab,
        "end_of_text": tokenizer.end_of_text,
        "fingerprint": tokenizer.fingerprint,
    }


def _words(record: dict[str, Any]) -> dict[str, str]:
    words = {name.replace("_", " "): str(value) for name, value in record.items()}
    if "bytes per token" in words:
        words["bytes per token"] = f"{record['bytes_per_token']:.2f}"
    return words
