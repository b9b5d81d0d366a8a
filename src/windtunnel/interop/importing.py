"""A Hugging Face folder as a run: its spec, its weights and its tokenizer, read without running anything in it."""

import platform
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from windtunnel.checkpoint import model_tensors, read_json, write, write_json
from windtunnel.data.tokenizers import Tokenizer
from windtunnel.errors import InputError
from windtunnel.interop.config import Config
from windtunnel.interop.families import family_named
from windtunnel.interop.family import Family
from windtunnel.interop.tensors import WHOLE, Form, Source, converted, finite, open_folder, write_tensors
from windtunnel.interop.tokenizers import KEPT, read_tokenizer
from windtunnel.interop.weights import Weight, expected
from windtunnel.root import Model
from windtunnel.runs import ORIGINAL, TOKENIZER
from windtunnel.version import VERSION

CHECKPOINT = "imported"
_PARTIAL = ".partial-"
# Buffers of older versions that state dicts carried: masks [1 1 t t], their fill, and rotary frequencies.
_BUFFERS = (
    (re.compile(r"\.(attn|attention)(\.attention)?\.bias$"), 4),
    (re.compile(r"\.(attn|attention)(\.attention)?\.masked_bias$"), 0),
    (re.compile(r"\.rotary_emb\.inv_freq$"), 1),
)
Report = Callable[[int, int], None]  # bytes done, bytes in all


@dataclass(frozen=True)
class Plan:
    """A checkpoint that fits: every tensor is there and has its shape."""

    family: Family
    spec: Model
    steps: list[Weight]
    names: Mapping[str, str]  # the source's names by the family's
    source: Source
    dtype: torch.dtype
    forms: Mapping[str, Form]  # of our tensors, in the order of the steps


def import_folder(
    folder: Path,
    out: Path,
    ignore: Sequence[str] = (),
    origin: str | None = None,
    report: Report | None = None,
    dtype: torch.dtype | None = None,
) -> dict[str, Any]:
    """Write the run folder `out` from a Hugging Face folder; returns what `run.json` holds.

    ignore: attributes of `config.json` that do not matter. origin: what to record as its source. dtype: of the weights;
    None keeps the checkpoint's. Raises `InputError` naming file and tensor before anything is in `out`; a killed import
    leaves nothing there either.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out}: already there; name a new or empty folder for the run")
    values = read_json(folder / "config.json")
    family, spec, kept = read_config(values, str(folder / "config.json"), ignore)
    tokenizer = read_tokenizer(folder, spec.vocab)
    with open_folder(folder) as source:
        plan = make_plan(family, spec, source, dtype)
        record = _record(plan, origin or str(folder.resolve()), kept, tokenizer)
        partial = out.resolve().with_name(f"{_PARTIAL}{out.resolve().name}")
        shutil.rmtree(partial, ignore_errors=True)
        try:
            partial.mkdir(parents=True)
            _write_weights(partial, plan, report)
            write_json(partial / "spec.json", spec.to_json())
            if tokenizer is not None:
                tokenizer.save(partial / TOKENIZER)
            _keep_originals(folder, partial / ORIGINAL)
            write_json(partial / "run.json", record)
            if out.is_dir():
                out.rmdir()
            partial.rename(out)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return record


def read_config(values: dict[str, Any], place: str, ignore: Sequence[str] = ()) -> tuple[Family, Model, dict[str, Any]]:
    """The family and the spec that a `config.json` stands for, and the attributes that are no part of the function."""
    family = family_named(values.get("model_type"), place)
    config = Config(values, place, ignore)
    try:
        spec = family.read(config)
    except InputError as error:
        raise error if str(error).startswith(place) else InputError(f"{place}: {error}") from error
    config.finish()
    return family, spec, config.kept()


def make_plan(family: Family, spec: Model, source: Source, wanted_dtype: torch.dtype | None = None) -> Plan:
    """Hold what a checkpoint has against what the spec needs; refuses what is missing, odd or left over."""
    with torch.device("meta"):
        ours = model_tensors(spec.build())
    names = _their_names(family, source)
    steps = family.steps(spec, names.keys())
    wanted = expected(steps, ours)
    _check(source, names, wanted, spec)
    dtype = reduce(torch.promote_types, [_dtype_of(source, names[name]) for name in wanted])
    if wanted_dtype is not None:
        dtype = wanted_dtype
    if any(step.wide for step in steps) and torch.promote_types(dtype, torch.float32) != dtype:
        if wanted_dtype is not None:
            raise InputError(
                f"--dtype: {family.name} has gains stored less one, which only float32 keeps; leave it out"
            )
        dtype = torch.float32
    order = [name for step in steps for name in step.ours]
    return Plan(family, spec, steps, names, source, dtype, {n: Form(tuple(ours[n].shape), dtype, "") for n in order})


def our_tensors(plan: Plan) -> Iterator[tuple[str, Tensor]]:
    """Our tensors one after another, in the order of `plan.forms`; no more than one step's are in memory."""
    for step in plan.steps:
        parts = [_read(plan.source, plan.names[name]) for name in step.theirs]
        yield from ((name, converted(tensor, plan.dtype, name)) for name, tensor in step.to_ours(parts).items())


def _read(source: Source, name: str) -> Tensor:
    tensor = source.read(name)
    if not finite(tensor):
        raise InputError(f"{source.forms[name].file}: {name} holds numbers that are not finite")
    return tensor


def _their_names(family: Family, source: Source) -> dict[str, str]:
    """Names as the family's steps have them: older spellings changed, the prefix of bare models added."""
    bare = family.prefix and not any(name.startswith(family.prefix) for name in source.forms)
    found = {}
    for name, form in source.forms.items():
        if any(pattern.search(name) and len(form.shape) in (dims, 1 - dims) for pattern, dims in _BUFFERS):
            continue
        spelled = f"{family.prefix}{name}" if bare and not name.startswith("lm_head.") else name
        for old, new in family.aliases:
            spelled = spelled.replace(old, new)
        found[spelled] = name
    return found


def _check(source: Source, names: Mapping[str, str], wanted: Mapping[str, Tensor], spec: Model) -> None:
    place = next(iter(source.forms.values())).file if source.forms else "the checkpoint"
    missing = [name for name in wanted if name not in names]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise InputError(f"{place}: {missing[0]} is missing{more}")
    for name, tensor in wanted.items():
        form = source.forms[names[name]]
        if form.shape != tuple(tensor.shape):
            shape = list(tensor.shape)
            raise InputError(f"{form.file}: {names[name]} is {list(form.shape)}; config.json makes it {shape}")
    extra = [names[name] for name in names if name not in wanted]
    for name in extra:
        if not (name == "lm_head.weight" and spec.head.tied and _is_the_table(source, names, name)):
            raise InputError(f"{source.forms[name].file}: {name} has no place in this model; config.json needs none")


def _is_the_table(source: Source, names: Mapping[str, str], head: str) -> bool:
    """Whether a tied head, which need not be stored, is the table of tokens."""
    shape = source.forms[head].shape
    tables = [name for name in names.values() if name != head and source.forms[name].shape == shape]
    return any(torch.equal(source.read(head), source.read(name)) for name in tables)


def _dtype_of(source: Source, name: str) -> torch.dtype:
    form = source.forms[name]
    if form.dtype is None:
        raise InputError(f"{form.file}: {name} is no floating-point tensor; quantised weights are not carried")
    return form.dtype


def _write_weights(run: Path, plan: Plan, report: Report | None) -> None:
    total = sum(torch.Size(form.shape).numel() * plan.dtype.itemsize for form in plan.forms.values())

    def counted() -> Iterator[tuple[str, Tensor]]:
        done = 0
        for name, tensor in our_tensors(plan):
            yield name, tensor
            done += tensor.nbytes
            if report is not None:
                report(done, total)

    write(
        run / "checkpoints" / CHECKPOINT,
        lambda folder: {WHOLE: write_tensors(folder / WHOLE, plan.forms, counted())},
        {"final": True, "imported": True},
    )


def _keep_originals(folder: Path, place: Path) -> None:
    """Small files that an export gives back as they were."""
    place.mkdir()
    for name in KEPT:
        if (folder / name).is_file():
            shutil.copyfile(folder / name, place / name)


def _record(plan: Plan, origin: str, kept: dict[str, Any], tokenizer: Tokenizer | None) -> dict[str, Any]:
    return {
        "format": 1,
        "identity": {"spec": {"fingerprint": plan.spec.fingerprint()}},
        "imported": {
            "from": origin,
            "family": plan.family.name,
            "architecture": plan.family.architecture,
            "parameters": sum(torch.Size(form.shape).numel() for form in plan.forms.values()),
            "tokenizer": None if tokenizer is None else tokenizer.label,
            "dtype": str(plan.dtype).removeprefix("torch."),
            "pickled": plan.source.pickled,
            "config": kept,
        },
        "versions": {
            "windtunnel": VERSION,
            "torch": torch.__version__,
            "python": platform.python_version(),
            "platform": platform.platform(),
        },
    }
