"""Options that several verbs share, spelled once."""

from pathlib import Path
from typing import Annotated, Any

import typer

from windtunnel import recipes
from windtunnel.errors import InputError
from windtunnel.values import parse_count


def count(text: Any) -> int:
    """A count typed as an option's value."""
    try:
        return text if isinstance(text, int) else parse_count(text)
    except InputError as error:
        raise typer.BadParameter(str(error)) from error


def vocabulary(text: Any) -> Any:
    """`bytes`, or how many tokens a vocabulary has."""
    return text if text == "bytes" else count(text)


def state_size(text: Any) -> Any:
    """`baseline`, or how many bytes of state."""
    return text if text == "baseline" else count(text)


def complete_recipe(incomplete: str) -> list[tuple[str, str]]:
    """Recipes that begin like this, with their titles, for the shell's completion."""
    return [(name, recipes.entry(name).title) for name in recipes.names() if name.startswith(incomplete)]


Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout and nothing else there.")]
Settings = Annotated[
    list[str],
    typer.Option("--set", metavar="NAME=VALUE", help="A setting of the recipe, such as layers=6; repeats."),
]
Data = Annotated[
    list[str],
    typer.Option(
        "--data",
        metavar="[NAME=]PATH",
        help="A text, a folder, JSON lines (.jsonl, .gz, .zst), Parquet, a dataset saved to disk, or hf:NAME of the "
        "Hugging Face hub; repeats. NAME= makes it one set. 'digits': pictures of 8 x 8. 'stdlib', also without it: "
        "the source text of Python's standard library.",
    ),
]
Task = Annotated[
    str | None,
    typer.Option(
        "--task",
        metavar="TASK[:NAME=VALUE,...]",
        help="A synthetic task in place of a text, such as mqar:pairs=8,length=128; see docs/tasks.md.",
    ),
]
Items = Annotated[
    int | None, typer.Option("--items", metavar="COUNT", parser=count, help="Held-out items of a task; else 2,000.")
]
TextField = Annotated[str, typer.Option("--text-field", help="The field of a record that holds its text.")]
SetField = Annotated[str, typer.Option("--set-field", help="The field of a record that names its set.")]
Mixing = Annotated[
    list[str],
    typer.Option(
        "--mix",
        metavar="NAME=WEIGHT",
        help="The weight of a set of the data, 0.3, or its epochs beside the others, 3x; repeats, or is one .json or "
        ".toml file of them.",
    ),
]
Packages = Annotated[
    list[str], typer.Option("--package", help="A package of your own whose parts a spec may name; repeats.")
]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1 or mps.")]
Compile = Annotated[
    bool,
    typer.Option(
        "--compile",
        help="Decode by a compiled step: a third of the time a token, after a minute or so of compiling with a C++ "
        "compiler, once for an architecture and machine (kept in ~/.cache/windtunnel).",
    ),
]
CacheType = Annotated[
    str | None,
    typer.Option(
        "--cache-dtype",
        metavar="float32|bfloat16|float16",
        help="How keys and values are kept while decoding; the 16-bit types take half the memory and round them.",
    ),
]
DType = Annotated[str, typer.Option("--dtype", help="auto, float32, tf32 or bfloat16.")]
_WEIGHT_DTYPES = ("float32", "bfloat16", "float16")


def weight_dtype(name: str | None) -> Any:
    """The dtype of weights in a file that --dtype names, as torch has it."""
    if name is None:
        return None
    if name not in _WEIGHT_DTYPES:
        raise InputError(f"--dtype: expected {', '.join(_WEIGHT_DTYPES)}, got {name!r}")
    import torch

    return getattr(torch, name)


Vocabulary = Annotated[
    str | None,
    typer.Option(
        "--vocab",
        metavar="COUNT|bytes",
        parser=vocabulary,
        help="Size of the vocabulary to train on the data, or 'bytes'. Without it the corpus's size decides.",
    ),
]
TokenizerPath = Annotated[
    Path | None,
    typer.Option(
        "--tokenizer",
        metavar="PATH",
        help="A tokenizer made elsewhere: a folder or a tokenizer.json, instead of --vocab.",
    ),
]
