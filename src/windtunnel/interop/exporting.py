"""A run as a folder that transformers loads: by a class of its own where one computes the same, else by ours."""

import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from windtunnel.checkpoint import check, write_json
from windtunnel.distributed.files import read_parts
from windtunnel.errors import InputError, WorkError
from windtunnel.interop.card import model_card
from windtunnel.interop.families import FAMILIES, family_named, written
from windtunnel.interop.family import Family
from windtunnel.interop.importing import Report
from windtunnel.interop.tensors import (
    INDEX,
    WHOLE,
    Form,
    Source,
    converted,
    dtype_of,
    finite,
    open_file,
    size_of,
    write_tensors,
)
from windtunnel.interop.tokenizers import write_tokenizer
from windtunnel.interop.weights import Weight, expected
from windtunnel.root import Model
from windtunnel.runs import ORIGINAL, Stored, find
from windtunnel.version import VERSION

SHARD_BYTES = 5_000_000_000
_PARTIAL, _JOINED = ".partial-", "joined.safetensors"


@dataclass(frozen=True)
class Export:
    """What was written. reasons: why other families were not chosen, by name."""

    folder: Path
    family: Family
    dtype: torch.dtype
    parameters: int
    files: tuple[str, ...]
    tokenizer: bool
    reasons: Mapping[str, str]


def export_run(
    run: Path,
    out: Path,
    family: str | None = None,
    dtype: torch.dtype | None = None,
    checkpoint: str | None = None,
    packages: tuple[str, ...] = (),
    shard_bytes: int = SHARD_BYTES,
    report: Report | None = None,
) -> Export:
    """Write the folder `out`. family: the `model_type` to write; None takes the first that can say the spec.

    dtype: of the weights; None is the run's. Raises `InputError` with the reason where a family cannot say the spec,
    before anything is in `out`.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out}: already there; name a new or empty folder")
    stored = find(run, checkpoint, packages)
    chosen, attributes, reasons = choose(stored.spec, family, (stored.imported or {}).get("family"))
    held = check(stored.checkpoint, ("model",))
    partial = out.resolve().with_name(f"{_PARTIAL}{out.resolve().name}")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        weights = held[0] if len(held) == 1 else _joined(held, partial / _JOINED)
        with open_file(weights) as source:
            forms = _their_forms(chosen.steps(stored.spec, ()), source, dtype, str(weights))
            tensors = _counted(_their_tensors(chosen.steps(stored.spec, ()), source, forms), forms, report)
            files = _write_shards(partial, forms, tensors, shard_bytes)
        written_as = next(iter(forms.values())).dtype
        assert written_as is not None
        kept = _write_words(partial, stored, chosen, attributes, written_as)
        exported = Export(out, chosen, written_as, _count(forms), files, kept, reasons)
        (partial / "README.md").write_text(model_card(stored, exported), encoding="utf-8")
        (partial / _JOINED).unlink(missing_ok=True)
        if out.is_dir():
            out.rmdir()
        partial.rename(out)
    except OSError as error:
        raise WorkError(f"cannot write {out}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return exported


def choose(
    spec: Model, name: str | None = None, first: str | None = None
) -> tuple[Family, dict[str, Any], dict[str, str]]:
    """A family that can say this spec, its attributes, and the reasons of those that cannot.

    name: the only one to try. first: the one to try first, such as that of an imported run.
    """
    reasons: dict[str, str] = {}
    order = [name] if name is not None else [*([first] if first in FAMILIES else []), *FAMILIES]
    for each in dict.fromkeys(order):
        family = family_named(each, "--family")
        try:
            return family, written(family, spec), reasons
        except InputError as error:
            reasons[family.name] = str(error)
    known = reasons[name] if name is not None else "; ".join(f"{each}: {why}" for each, why in reasons.items())
    raise InputError(f"{name or spec.kind} cannot say this model: {known}")


def _joined(parts: list[Path], path: Path) -> Path:
    """One file of what several processes wrote."""
    save_file(read_parts(parts, {}), path)
    return path


def _their_forms(steps: list[Weight], source: Source, dtype: torch.dtype | None, place: str) -> dict[str, Form]:
    ours = {name: torch.empty(form.shape, dtype=form.dtype, device="meta") for name, form in source.forms.items()}
    odd = sorted({name for step in steps for name in step.ours} ^ set(ours))
    if odd:
        raise InputError(f"{place}: {odd[0]} is in the spec or in the weights, not in both")
    found = expected(steps, ours)
    return {name: Form(tuple(each.shape), dtype or each.dtype, "") for name, each in found.items()}


def _their_tensors(steps: list[Weight], source: Source, forms: Mapping[str, Form]) -> Iterator[tuple[str, Tensor]]:
    for step in steps:
        parts = [source.read(name) for name in step.ours]
        for name, part in zip(step.ours, parts, strict=True):
            if not finite(part):
                raise InputError(f"{source.forms[name].file}: {name} holds numbers that are not finite")
        for name, tensor in step.to_theirs(parts).items():
            yield name, converted(tensor, dtype_of(forms[name]), name)


def _counted(
    tensors: Iterator[tuple[str, Tensor]], forms: Mapping[str, Form], report: Report | None
) -> Iterator[tuple[str, Tensor]]:
    total, done = sum(map(size_of, forms.values())), 0
    for name, tensor in tensors:
        yield name, tensor
        done += tensor.nbytes
        if report is not None:
            report(done, total)


def _write_shards(
    folder: Path, forms: dict[str, Form], tensors: Iterator[tuple[str, Tensor]], shard_bytes: int
) -> tuple[str, ...]:
    """One file, or several of at most `shard_bytes` with an index, as transformers names them."""
    shards: list[dict[str, Form]] = [{}]
    held = 0
    for name, form in forms.items():
        if shards[-1] and held + size_of(form) > shard_bytes:
            shards.append({})
            held = 0
        shards[-1][name] = form
        held += size_of(form)
    count = len(shards)
    files = [WHOLE] if count == 1 else [f"model-{i:05}-of-{count:05}.safetensors" for i in range(1, count + 1)]
    for file, shard in zip(files, shards, strict=True):
        write_tensors(folder / file, shard, islice(tensors, len(shard)))
    if count == 1:
        return (WHOLE,)
    places = {name: file for file, shard in zip(files, shards, strict=True) for name in shard}
    total = sum(map(size_of, forms.values()))
    write_json(folder / INDEX, {"metadata": {"total_size": total}, "weight_map": places})
    return (*files, INDEX)


def _write_words(folder: Path, stored: Stored, family: Family, attributes: dict[str, Any], dtype: torch.dtype) -> bool:
    """Configurations and tokenizer; returns whether there is one."""
    kept = (stored.imported or {}).get("config", {})
    tokenizer = stored.tokenizer()
    begin, end = (None, None) if tokenizer is None else (tokenizer.begin_of_text, tokenizer.end_of_text)
    config = {
        "architectures": [family.architecture],
        "model_type": family.name,
        "dtype": str(dtype).removeprefix("torch."),
        "bos_token_id": begin,
        "eos_token_id": end,
        **kept,
        **attributes,
        "windtunnel_version": VERSION,
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    tokens = {name: value for name, value in config.items() if name.endswith("_token_id")}
    (folder / "generation_config.json").write_text(json.dumps(tokens, indent=2) + "\n")
    return write_tokenizer(folder, tokenizer, stored.folder / ORIGINAL, stored.spec.context)


def _count(forms: Mapping[str, Form]) -> int:
    return sum(torch.Size(form.shape).numel() for form in forms.values())
