"""A trained run made to read longer text: other rotary frequencies, and some more training at that length."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from windtunnel.checkpoint import load
from windtunnel.data.files import default_cache
from windtunnel.data.shards import Dataset, open_dataset
from windtunnel.errors import InputError
from windtunnel.evaluation.reach import longest_input
from windtunnel.execution import Execution
from windtunnel.positions.scaling import SCALINGS
from windtunnel.root import Model
from windtunnel.runs import Stored, find
from windtunnel.spec import from_json, nearest
from windtunnel.training.origin import Origin
from windtunnel.training.progress import Report
from windtunnel.training.run import RunResult, train
from windtunnel.training.settings import TrainingSettings

NONE = "none"
METHODS = (NONE, *SCALINGS)
_RATE = 0.1  # of the learning rate that the run was trained with
_DEFAULT = Execution()


@dataclass(frozen=True)
class Extension:
    """An extension that can begin: the run that it starts from, what it will be, and how it is trained.

    trained: tokens of the sequences that the first run was trained on.
    """

    source: Stored
    spec: Model
    settings: TrainingSettings
    dataset: Dataset
    method: str
    trained: int

    @property
    def origin(self) -> Origin:
        """The weights to begin with, checked against their hashes."""
        tensors = load(self.source.checkpoint, ("model",)).tensors["model"]
        facts = {"trained": self.trained, "method": self.method, "factor": self.settings.context / self.trained}
        return Origin.of(tensors, self.source.checkpoint, {"extended": {**facts, "run": str(self.source.folder)}})


def plan(
    folder: Path,
    method: str,
    factor: float,
    tokens: int,
    *,
    learning_rate: float | None = None,
    batch: int | None = None,
    seed: int | None = None,
    packages: tuple[str, ...] = (),
) -> Extension:
    """What `extend` does, checked.

    method: how rotary frequencies change (linear, ntk, dynamic, yarn, llama3), or "none": longer sequences alone. Steps
    keep their number of tokens, the learning rate is a tenth of the run's, with a warm-up and a linear cooldown, unless
    told otherwise; everything else is as the run was trained, on the same text in another order.
    Raises `InputError` for a run that was not trained here on text, or extended before, and for what does not fit.
    """
    source = find(folder, packages=packages)
    old = _settings(source)
    length = round(old.context * factor)
    if method not in METHODS:
        raise InputError(f"--method: unknown {method!r}{nearest(method, METHODS)}")
    if length <= old.context:
        raise InputError(f"--factor: {factor:g} times {old.context} tokens is no longer than {old.context}; above 1")
    spec = _longer(source.spec, method, length, old.context)
    limit = longest_input(spec)
    if limit is not None and limit < length:
        raise InputError(f"{folder}: its positions end at {limit:,}, and --factor {factor:g} needs {length:,} tokens")
    settings = old.replace(
        tokens=tokens,
        context=length,
        batch_size=batch or max(1, old.step_tokens // length),
        learning_rate=_RATE * old.learning_rate if learning_rate is None else learning_rate,
        seed=old.seed if seed is None else seed,
        data_seed=old.data_seed + 1 if seed is None else seed,
        accumulation=1,
        ramp=(),
        skips=(),
        horizons=(1.0,),
        **{name: getattr(TrainingSettings, name) for name in ("schedule", "warmup", "cooldown", "flat", "constant")},
    )
    return Extension(source, spec, settings, _dataset(source), method, old.context)


def extend(
    extension: Extension,
    out: Path,
    execution: Execution = _DEFAULT,
    resume: bool = False,
    progress: Report | None = None,
    **saving: Any,
) -> RunResult:
    """Carry an extension out: a run folder as any other, whose `run.json` says what it came from."""
    return train(
        extension.spec,
        extension.settings,
        extension.dataset,
        out,
        execution,
        resume,
        progress,
        origin=extension.origin,
        **saving,
    )


def _settings(source: Stored) -> TrainingSettings:
    if "extended" in source.record:
        first = source.record["extended"]["run"]
        raise InputError(f"{source.folder}: is extended already; extend {first}, from which it came")
    found = source.record["identity"].get("settings")
    if found is None or "id" not in (source.record.get("data") or {}):
        raise InputError(f"{source.folder}: was not trained here on a text, and so there is no training to go on with")
    if source.record["result"] is None:
        raise InputError(f"{source.folder}: is not finished; go on with it by --resume first")
    settings = from_json(found, path="settings")
    assert isinstance(settings, TrainingSettings)
    return settings


def _longer(spec: Model, method: str, length: int, trained: int) -> Model:
    if method == NONE:
        return spec.replace(context=max(length, spec.context))
    return spec.extended(method, length, trained)


def _dataset(source: Stored) -> Dataset:
    folder = default_cache() / str(source.record["data"]["id"])
    if not folder.is_dir():
        raise InputError(
            f"{source.folder}: its text is not in {default_cache()}; `windtunnel train` on the same --data with "
            "the same tokenizer puts it there"
        )
    return open_dataset(folder)
