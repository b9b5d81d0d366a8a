"""Reading past the trained length: RoPE, ALiBi, Griffin and Hawk trained at two lengths, and RoPE extended.

A small counterpart of what Press et al. 2022, De et al. 2024, Chen et al. 2023 and Peng et al. 2023 report. Every arm
is trained alike on bytes, at two lengths, because how far a model reads depends on that too.
"""

import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from windtunnel import recipes
from windtunnel.checkpoint import write_json
from windtunnel.data.corpus import read_corpus
from windtunnel.data.shards import Dataset, prepare
from windtunnel.errors import InputError
from windtunnel.evaluation.evaluate import Answers, evaluate
from windtunnel.evaluation.length import Length
from windtunnel.evaluation.page import render, tables
from windtunnel.evaluation.subject import subjects_of
from windtunnel.execution import Execution, hardware_name
from windtunnel.report import Table, write_page
from windtunnel.root import Model
from windtunnel.training.extending import extend, plan
from windtunnel.training.progress import Progress, duration, figures
from windtunnel.training.run import train
from windtunnel.training.settings import TrainingSettings

ARMS = {"RoPE": "llama", "ALiBi": "mpt_alibi", "Griffin": "griffin", "Hawk": "hawk"}
EXTENDED = "RoPE"
METHODS = ("none", "linear", "yarn")
_VOCAB = 257
_STEP_TOKENS = 2048
_HELDOUT_TOKENS = 300_000
_SCORED_TOKENS = 16_384

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """lengths: trained at, rising. tokens: of a run. tuned: of an extension by `factor`. pieces: read at every length.

    longest: multiples of the trained length that are read, by all arms, and by the extended one.
    """

    lengths: tuple[int, ...] = (64, 256)
    tokens: int = 800_000
    tuned: int = 100_000
    seeds: int = 3
    factor: float = 4.0
    longest: tuple[float, float] = (8.0, 16.0)
    pieces: int = 32
    layers: int = 3
    width: int = 64
    threads: int = 2

    def __post_init__(self) -> None:
        for name in ("tokens", "tuned", "seeds", "pieces", "threads"):
            if getattr(self, name) < 1:
                raise InputError(f"--{name}: expected at least 1, got {getattr(self, name)}")
        if self.tokens < _STEP_TOKENS or self.tuned < _STEP_TOKENS:
            raise InputError(f"--tokens and --tuned: expected at least a step of {_STEP_TOKENS:,}")


def run(experiment: Experiment, out: Path, say: Say) -> tuple[dict[str, Any], list[Table]]:
    """Train, extend and evaluate everything, all of it left in `out`; what is done already is not done again.

    Returns the figures, and tables of what arms and extensions cost at every length.
    """
    execution = Execution(device="cpu", threads=experiment.threads)
    dataset = prepare(read_corpus(), "bytes", max(experiment.lengths), _HELDOUT_TOKENS)
    arms = [(label, length) for length in experiment.lengths for label in ARMS]
    runs = [
        (f"{label} {length}", _trained(experiment, label, length, seed, dataset, execution, out, say))
        for label, length in arms
        for seed in range(experiment.seeds)
    ]
    first = experiment.lengths[0]
    originals = [folder for label, folder in runs if label == f"{EXTENDED} {first}"]
    tuned = [
        (f"{method}, trained further", _extended(experiment, method, folder, execution, say))
        for method in METHODS
        for folder in originals
    ]
    everything = Length(longest=experiment.longest[0], pieces=experiment.pieces)
    rescaled = Length(longest=experiment.longest[1], pieces=experiment.pieces, scalings=("all",))
    zero = [(f"{EXTENDED} {first}", folder) for folder in originals]
    with execution.resolve().applied():
        answers = {
            "length": _asked(runs, everything, out, say),
            "scaling": _asked([*zero, *tuned], rescaled, out, say),
        }
    result = {
        "benchmark": "length",
        "created": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "hardware": hardware_name(execution.resolve().device),
        "versions": {"torch": torch.__version__, "python": platform.python_version()},
        "settings": {**asdict(experiment), "text": dataset.record["source"], "arms": ARMS},
        **{name: answer.to_json() for name, answer in answers.items()},
    }
    for name, answer in answers.items():
        say(str(write_page(out / f"{name}.html", render(answer))))
    write_json(out / "result.json", result)
    return result, [table for answer in answers.values() for table in tables(answer)]


def spec_of(experiment: Experiment, label: str, length: int) -> Model:
    """An arm's model; Griffin's window is half the trained length, as in the paper."""
    windowed = {"window": length // 2} if label == "Griffin" else {}
    made = recipes.get(ARMS[label])(
        vocab=_VOCAB, layers=experiment.layers, width=experiment.width, context=length, **windowed
    )
    assert isinstance(made, Model)
    return made


def _trained(
    experiment: Experiment,
    label: str,
    length: int,
    seed: int,
    dataset: Dataset,
    execution: Execution,
    out: Path,
    say: Say,
) -> Path:
    folder = out / "runs" / f"{ARMS[label]}-{length}-{seed}"
    settings = TrainingSettings(
        tokens=experiment.tokens,
        context=length,
        batch_size=_STEP_TOKENS // length,
        learning_rate=recipes.training(ARMS[label]).learning_rate_at(experiment.width),
        seed=seed,
        data_seed=seed,
        evaluation_tokens=_SCORED_TOKENS,
    )
    spec = spec_of(experiment, label, length)
    result = train(spec, settings, dataset, folder, execution, True, _shown(folder.name, say), events=False)
    say(f"{folder.name}: {result.loss:.3f} nats, {duration(result.seconds)}")
    return folder


def _extended(experiment: Experiment, method: str, source: Path, execution: Execution, say: Say) -> Path:
    folder = source.with_name(f"{source.name}-{method}")
    made = plan(source, method, experiment.factor, experiment.tuned)
    result = extend(made, folder, execution, True, _shown(folder.name, say), events=False)
    say(f"{folder.name}: {result.loss:.3f} nats, {duration(result.seconds)}")
    return folder


def _asked(runs: Sequence[tuple[str, Path]], question: Length, out: Path, say: Say) -> Answers:
    names = [f"{label}={folder}" for label, folder in runs]
    subjects = subjects_of(names, (), "text", torch.device("cpu"))
    said = _Seldom(say)
    return evaluate(
        subjects, [question], out, lambda p: said(f"{p.what}: {100 * p.done / p.total:.0f} %, {_left(p.seconds_left)}")
    )


def _left(seconds: float | None) -> str:
    return "" if seconds is None else f"{duration(seconds)} left"


def _shown(name: str, say: Say) -> Callable[[Progress], None]:
    said = _Seldom(say)
    return lambda progress: said(f"{name}: {figures(progress)}")


class _Seldom:
    """Says something at most every ten seconds."""

    def __init__(self, say: Say) -> None:
        self._say, self._said = say, time.monotonic()

    def __call__(self, words: str) -> None:
        if time.monotonic() - self._said > 10:
            self._said = time.monotonic()
            self._say(words)
