"""From what a user asks to a study: everything that can be checked is checked before anything runs."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from windtunnel.comparison.arms import Arm, build_arms
from windtunnel.comparison.presets import Preset, preset
from windtunnel.comparison.published import with_papers
from windtunnel.comparison.study import Study, check_folder
from windtunnel.data.building import Progress
from windtunnel.data.corpus import read_corpus
from windtunnel.data.documents import SET_FIELD
from windtunnel.data.mixture import make_sampler, resolve
from windtunnel.data.shards import prepare
from windtunnel.errors import InputError
from windtunnel.execution import Execution

MARGIN = 0.03


@dataclass(frozen=True)
class StudyRequest:
    """What a user asks for. `settings` hold for every arm (`layers`, `width`, ...); the rest replaces the preset's.

    rules: "paper" puts beside each arm one that trains as its paper did, where the recipe says how.
    """

    arms: tuple[str, ...]
    out: Path
    data: tuple[Path | str, ...] | None = None
    text_field: str = "text"
    set_field: str = SET_FIELD
    mix: Mapping[str, str] = field(default_factory=dict)
    preset: str = "quick"
    baseline: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    tokenizer: Any = None
    vocab: int | None = None
    tokens: int | None = None
    seeds: int | None = None
    evaluation_tokens: int | None = None
    batch_size: int | None = None
    trials: int | None = None
    blocks: int | None = None
    margin: float = MARGIN
    primary: str | None = None
    max_epochs: float = 4.0
    allow_param_gap: bool = False
    device: str = "auto"
    dtype: str = "auto"
    compile: bool = False
    workers: int | None = None
    cache: Path | None = None
    packages: tuple[str, ...] = ()
    rules: str = "common"


def plan_study(request: StudyRequest, progress: Progress | None = None) -> Study:
    """Check everything that can be checked and prepare the data; nothing is written to the study's folder.

    Raises `InputError` for whatever cannot be: unknown arms or settings, sizes that do not divide, a corpus that is too
    small (with the epochs that it would take), an output folder of another study.
    """
    execution = Execution(device=request.device, dtype=request.dtype, compile=request.compile, threads=1)  # type: ignore[arg-type]
    resolved = execution.resolve()
    execution = execution.replace(device=resolved.device.type)  # each worker sees one device
    design = _design(request, resolved.device.type)
    _build(request, design, design.vocab or 1024)  # impossible arms are found before the corpus is read
    corpus = read_corpus(request.data, request.text_field, request.set_field)
    choice = request.tokenizer if request.tokenizer is not None else design.vocab
    dataset = prepare(corpus, choice, design.context, design.evaluation_tokens, request.cache, progress)
    arms, baseline = _build(request, design, int(dataset.record["vocab"]))
    longest = max(round(design.tokens * design.longest * arm.token_factor) for arm in arms)
    mixture = resolve(request.mix, dataset.train) if request.mix else ()
    sampler = make_sampler(dataset.train, design.context, 1, mixture)
    steps = max(1, round(longest / (design.batch_size * design.context)))
    try:
        sampler.check_epochs(steps, design.batch_size, request.max_epochs)
    except InputError as error:
        raise InputError(f"{error}; the longest horizon is {design.longest:g} x --tokens") from None
    study = Study(
        title=" · ".join(arm.label for arm in arms),
        arms=tuple(arms),
        baseline=baseline,
        design=design,
        data={**dataset.record, "epochs": sampler.epochs(steps, design.batch_size)},
        mixture=mixture,
        execution=execution,
        device=resolved.device.type,
        dtype=resolved.dtype,
        margin=request.margin,
        primary=request.primary,
        dataset_folder=dataset.folder,
    )
    for arm in arms:  # an impossible budget or schedule is found before anything runs
        study.all_settings(arm, 1e-3, 1)
        study.trial_settings(arm, 1e-3, design.tuning_fraction)
    check_folder(study, request.out)
    return study


def _design(request: StudyRequest, device: str) -> Preset:
    design = preset(request.preset, device)
    names = ("tokens", "seeds", "evaluation_tokens", "batch_size", "trials", "blocks", "vocab")
    changes = {name: getattr(request, name) for name in names if getattr(request, name) is not None}
    for name in ("layers", "width", "context"):
        if name in request.settings:
            changes[name] = request.settings[name]
    for name, value in changes.items():
        if not isinstance(value, int) or value < 1:
            raise InputError(f"{name}: {value!r} given; a whole number of at least 1")
    if not 0 < request.margin < math.inf:
        raise InputError(f"margin: {request.margin} given; a share above 0, e.g. 0.03")
    if request.primary not in (None, "iso_token", "iso_flop", "iso_time"):
        raise InputError(f"primary: {request.primary!r} given; iso_token, iso_flop or iso_time")
    return replace(design, **changes)


def _build(request: StudyRequest, design: Preset, vocab: int) -> tuple[list[Arm], str]:
    lattice = 8 if design.width < 512 else 64
    arms, baseline = build_arms(
        request.arms,
        request.baseline,
        design,
        vocab,
        {name: value for name, value in request.settings.items() if name != "vocab"},
        lattice=lattice,
        allow_gap=request.allow_param_gap,
    )
    return with_papers(arms, request.rules), baseline
