"""`windtunnel needles`: a corpus, some of it with needles to find, to train on."""

import json
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated

import typer

from windtunnel.cli.options import Data, Json, SetField, TextField

if TYPE_CHECKING:
    from collections.abc import Iterable

    from windtunnel.data.documents import Document

_EXAMPLE = """Examples:

windtunnel needles --data my.txt --share 0.05 --out with-needles.jsonl

windtunnel compare llama diff_transformer --data with-needles.jsonl --evaluate needle,multi-needle --out studies/needles

Without --data it is the text that other verbs read then. All arms of a comparison are trained on the same file.
"""


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("needles", epilog=_EXAMPLE)(run)


def run(
    out: Annotated[Path, typer.Option(metavar="FILE", help="The JSON lines to write.")],
    data: Data = [],  # noqa: B006
    text_field: TextField = "text",
    set_field: SetField = "meta.pile_set_name",
    share: Annotated[float, typer.Option(help="Of the documents, how many are cut up and hold needles.")] = 0.05,
    shortest: Annotated[int, typer.Option(help="Characters of a piece, at the least.")] = 100,
    longest: Annotated[int, typer.Option(help="And at the most; needle and question take about 200 more.")] = 800,
    seed: Annotated[int, typer.Option(help="Of names, numbers and places.")] = 0,
    as_json: Json = False,
) -> None:
    """Put needles into some documents of a corpus, each with a question and its answer, for models to learn from."""
    from windtunnel.checkpoint import write_atomically
    from windtunnel.cli.screen import Screen, facts
    from windtunnel.data.corpus import read_corpus
    from windtunnel.errors import InputError
    from windtunnel.evaluation.retrieval.training import Planting, planted

    planting = Planting(share, shortest, longest, seed)
    planting.check()
    if not out.parent.is_dir():
        raise InputError(f"--out {out}: no such folder")
    corpus = read_corpus(data or None, text_field, set_field)
    if not any(planting.chooses(document.text) for document in corpus.documents):
        raise InputError(f"--share {share:g}: chooses none of the documents of {corpus.name}; name a larger one")
    counts = {"documents": 0, "with_needles": 0, "bytes": 0, "bytes_with_needles": 0}

    def write(partial: Path) -> None:
        with partial.open("w", encoding="utf-8") as file:
            _write(file, planted(corpus.documents, planting), counts)

    write_atomically(out, write)
    record = {"file": str(out), "data": corpus.source, **planting._asdict(), **counts}
    Screen(as_json).finish(record, facts({name.replace("_", " "): str(value) for name, value in record.items()}))


def _write(file: IO[str], documents: "Iterable[Document]", counts: dict[str, int]) -> None:
    """The documents as lines, counted on the way."""
    from windtunnel.evaluation.retrieval.training import SET

    for document in documents:
        about = {} if document.set is None else {"meta": {"pile_set_name": document.set}}
        file.write(json.dumps({"name": document.name, "text": document.text, **about}, ensure_ascii=False) + "\n")
        size, planted = len(document.text.encode()), document.set == SET
        counts["documents"] += 1
        counts["with_needles"] += planted
        counts["bytes"] += size
        counts["bytes_with_needles"] += size if planted else 0
