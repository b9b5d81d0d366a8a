"""A trained run made to read longer text: other rotary frequencies, and some more training at that length."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

from windtunnel.data.files import default_cache
from windtunnel.data.shards import Dataset, open_dataset
from windtunnel.data.tokenizers import Tokenizer
from windtunnel.errors import InputError
from windtunnel.evaluation.reach import longest_input
from windtunnel.execution import Execution
from windtunnel.positions import Learned, stretched
from windtunnel.positions.scaling import SCALINGS
from windtunnel.root import Model
from windtunnel.runs import Stored, find
from windtunnel.spec import nearest
from windtunnel.training.continuing import own_tokenizer, settings_from, trained_settings
from windtunnel.training.origin import Origin, Tensors
from windtunnel.training.progress import Report
from windtunnel.training.run import RunResult, train
from windtunnel.training.settings import BATCH_SIZE, TrainingSettings

NONE = "none"
METHODS = (NONE, *SCALINGS)
Reader: TypeAlias = Callable[[Tokenizer, int], Dataset]  # with this tokenizer, for sequences of so many tokens
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
        """The weights to begin with."""
        facts = {"trained": self.trained, "method": self.method, "factor": self.settings.context / self.trained}
        interpolated = self.method == "linear" and not self.spec.rotates
        change = partial(_interpolated, trained=self.trained, length=self.settings.context) if interpolated else None
        return Origin.of(self.source, {"extended": {**facts, "run": str(self.source.folder)}}, change)


def plan(
    folder: Path,
    method: str,
    factor: float,
    tokens: int,
    *,
    data: Reader | None = None,
    learning_rate: float | None = None,
    batch: int | None = None,
    seed: int | None = None,
    packages: tuple[str, ...] = (),
) -> Extension:
    """What `extend` does, checked.

    method: how rotary frequencies change (linear, ntk, dynamic, yarn, llama3), or "none": longer sequences alone. A
    learned table knows "linear", which interpolates its rows. data: makes shards of a text; None is the run's own text,
    in another order.
    Steps keep their number of tokens, the learning rate is a tenth of the run's, with a warm-up and a linear cooldown,
    unless told otherwise; everything else is as the run was trained, or for an imported one as `settings_from` says.
    Raises `InputError` for a run without a text, or extended before, and for what does not fit.
    """
    source = find(folder, packages=packages)
    _check(source, method)
    old, trained = trained_settings(source), source.trained
    if not math.isfinite(factor):
        raise InputError(f"--factor: expected a number above 1, got {factor:g}")
    length = round(trained * factor)
    if length <= trained:
        raise InputError(f"--factor: {factor:g} times {trained} tokens is no longer than {trained}; above 1")
    spec = _longer(source, method, length)
    limit = longest_input(spec)
    if limit is not None and limit < length:
        raise InputError(f"{folder}: its positions end at {limit:,}, and --factor {factor:g} needs {length:,} tokens")
    step_tokens = BATCH_SIZE * trained if old is None else old.step_tokens
    given: dict[str, Any] = {"batch_size": batch or max(1, step_tokens // length)}
    if learning_rate is not None:
        given["learning_rate"] = learning_rate
    if data is not None:
        given["mixture"] = ()
    before = 0 if old is None else old.data_seed
    seeds = {"data_seed": before + 1} if seed is None else {"seed": seed, "data_seed": seed}
    settings = settings_from(source, tokens=tokens, context=length, **seeds, **given)
    return Extension(
        source,
        spec,
        settings,
        _dataset(source) if data is None else data(own_tokenizer(source), length),
        method,
        trained,
    )


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


def _check(source: Stored, method: str) -> None:
    if method not in METHODS:
        raise InputError(f"--method: unknown {method!r}{nearest(method, METHODS)}")
    if "extended" in source.record:
        first = source.record["extended"]["run"]
        raise InputError(f"{source.folder}: is extended already; extend {first}, from which it came")
    if source.spec.scaling is not None and method != NONE:
        raise InputError(
            f"{source.folder}: its rotary positions are scaled already ({source.spec.scaling.kind}, factor "
            f"{source.spec.scaling.factor:g}); --method none trains longer sequences with them as they are"
        )


def _longer(source: Stored, method: str, length: int) -> Model:
    spec = source.spec
    positions = spec.embedding.positions
    if method == NONE:
        return spec.replace(context=max(length, spec.context))
    if spec.rotates or not isinstance(positions, Learned):
        return spec.extended(method, length, source.trained)
    if method != "linear":
        raise InputError(
            f"{source.folder}: its positions are learned, with no rotary ones for {method} to scale; --method linear "
            "interpolates their table"
        )
    embedding = spec.embedding.replace(positions=positions.replace(length=length))
    return spec.replace(context=length, embedding=embedding)


def _interpolated(tensors: Tensors, trained: int, length: int) -> Tensors:
    name = "embedding.positions.weight"
    return {**tensors, name: stretched(tensors[name], trained, length)}


def _dataset(source: Stored) -> Dataset:
    """The text that the run was trained on."""
    if "id" not in (source.record.get("data") or {}):
        raise InputError(f"{source.folder}: was not trained here on a text; name one by --data")
    folder = default_cache() / str(source.record["data"]["id"])
    if not folder.is_dir():
        raise InputError(f"{source.folder}: its text is not in {default_cache()}; name it by --data, or another")
    return open_dataset(folder)
