"""Importing a checkpoint against copying its file: no import can be faster than reading and writing the bytes.

Both end with the bytes on the disk (fsync). An import also looks at every number, hashes what it writes, and makes the
run's other files. The source lies in the page cache for both.
"""

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from windtunnel import recipes
from windtunnel.bench.spread import Ratio
from windtunnel.bench.turns import Say, compared
from windtunnel.checkpoint import model_tensors, sync, write_json
from windtunnel.interop.families import FAMILIES, written
from windtunnel.interop.importing import import_folder
from windtunnel.interop.tensors import WHOLE, Form, write_tensors
from windtunnel.interop.weights import expected
from windtunnel.report.tables import Table
from windtunnel.root import Model

COPY, IMPORT = "copy and fsync", "import"
_Contestants = Mapping[str, Callable[[Path], object]]


def models() -> dict[str, tuple[str, Model, torch.dtype]]:
    """What is imported: a family, a spec and a dtype, by a name. Files of 0.5 and of 1.0 GB."""
    neo = recipes.build("gpt_neo", size="125m")
    llama = recipes.build("llama", vocab=32_000, layers=24, width=1280, context=2048)
    return {
        "GPT-Neo 125M, float32": ("gpt_neo", neo, torch.float32),
        "Llama, bfloat16": ("llama", llama, torch.bfloat16),
    }


def run(
    rounds: int,
    threads: int,
    say: Say = lambda words: None,
    given: dict[str, tuple[str, Model, torch.dtype]] | None = None,
) -> dict[str, Any]:
    """Seconds of both, in turns, for each model."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        found = [_raced(name, *each, rounds, say) for name, each in (given or models()).items()]
    finally:
        torch.set_num_threads(before)
    return {
        "benchmark": "importing",
        "created": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "versions": {"torch": torch.__version__},
        "settings": {"rounds": rounds, "threads": threads},
        "models": found,
    }


def make_folder(folder: Path, family: str, spec: Model, dtype: torch.dtype) -> None:
    """A checkpoint of random numbers as the hub has them, written a tensor at a time."""
    chosen = FAMILIES[family]
    folder.mkdir()
    write_json(folder / "config.json", {"model_type": family, **written(chosen, spec)})
    with torch.device("meta"):
        ours = model_tensors(spec.build())
    theirs = expected(chosen.steps(spec, ()), ours)
    forms = {name: Form(tuple(each.shape), dtype, "") for name, each in theirs.items()}
    write_tensors(folder / WHOLE, forms, ((name, torch.randn(form.shape).to(dtype)) for name, form in forms.items()))
    sync(folder / WHOLE)


def _raced(name: str, family: str, spec: Model, dtype: torch.dtype, rounds: int, say: Say) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as place:
        source = Path(place, "source")
        make_folder(source, family, spec, dtype)
        contestants = {
            COPY: lambda out: _copy(source / WHOLE, out),
            IMPORT: lambda out: import_folder(source, out),
        }
        seconds = _take_turns(contestants, Path(place), rounds, lambda words: say(f"{name}: {words}"))
        size = (source / WHOLE).stat().st_size
    return {"model": name, "bytes": size, "contestants": compared(seconds, COPY)}


def _take_turns(contestants: _Contestants, place: Path, rounds: int, say: Say) -> dict[str, list[float]]:
    """Seconds of each in every round, after one that does not count; what they write is removed between them."""
    names = list(contestants)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for index in range(rounds + 1):
        say(f"round {index} of {rounds}")
        for name in names[index % 2 :] + names[: index % 2]:
            os.sync()
            out = place / "out"
            began = time.perf_counter()
            contestants[name](out)
            if index:
                seconds[name].append(time.perf_counter() - began)
            shutil.rmtree(out)
    return seconds


def _copy(source: Path, out: Path) -> None:
    out.mkdir()
    shutil.copyfile(source, out / source.name)
    sync(out / source.name)


def table(result: dict[str, Any]) -> Table:
    """Both contestants for each model."""
    rows = [
        (model["model"], each["label"], f"{each['median_seconds']:.2f}", str(Ratio(**each["ratio"])))
        for model in result["models"]
        for each in model["contestants"]
    ]
    sizes = ", ".join(f"{model['model']} {model['bytes'] / 1e9:.2f} GB" for model in result["models"])
    return Table(
        caption=f"Importing a checkpoint, {result['settings']['threads']} threads",
        columns=("checkpoint", "contestant", "seconds (median)", "time over the copy's [95 %]"),
        rows=rows,
        numeric=(2, 3),
        note=f"Files: {sizes}. Both end with fsync; hashing and the check for finite numbers are part of an import.",
    )
