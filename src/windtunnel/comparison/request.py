"""From what a user asks to a study: everything that can be checked is checked before anything runs."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from windtunnel.comparison.ablation.arms import Ablation, ablation_arms, title_of
from windtunnel.comparison.arms import Arm, build_arms, sizes_given, state_of
from windtunnel.comparison.carried import carried, check_carried
from windtunnel.comparison.cluster import check_cluster
from windtunnel.comparison.looks import check_looks
from windtunnel.comparison.presets import Preset, for_task, preset
from windtunnel.comparison.probes import check_probes
from windtunnel.comparison.published import with_papers
from windtunnel.comparison.study import Study, check_folder
from windtunnel.data.building import Progress
from windtunnel.data.corpus import read_corpus
from windtunnel.data.documents import SET_FIELD
from windtunnel.data.mixture import Mix, make_sampler, resolve
from windtunnel.data.shards import prepare
from windtunnel.data.tasks import Task, parse_task
from windtunnel.errors import InputError
from windtunnel.execution import Execution
from windtunnel.training.transfer import check_mup
from windtunnel.training.workload import ITEMS, Synthetic, Text, Workload

MARGIN = 0.03


@dataclass(frozen=True)
class StudyRequest:
    """What a user asks for. `settings` hold for every arm (`layers`, `width`, ...); the rest replaces the preset's.

    task: a synthetic task in place of a text. state: arms are matched in the bytes that decoding an item of it carries,
    so many, or "baseline" for as many as the baseline has; None matches parameters.
    rules: "paper" puts beside each arm one that trains as its paper did, where the recipe says how.
    reference: nats a token that a strong baseline reaches at D; a baseline above it caps every verdict.
    probes: of `probes.PROBES`, runs that ask how far the answer depends on a choice.
    looks: how often seeds are looked at and doubled while a verdict is open.
    ablation: a recipe to take apart, in place of arms. mup: the width from which muP carries every arm, if it passes
    the coordinate check.
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
    task: str | None = None
    items: int | None = None
    state: int | str | None = None
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
    reference: float | None = None
    probes: tuple[str, ...] = ()
    looks: int = 1
    max_epochs: float = 4.0
    allow_param_gap: bool = False
    device: str = "auto"
    dtype: str = "auto"
    compile: bool = False
    workers: int | None = None
    cluster: str | None = None
    cache: Path | None = None
    packages: tuple[str, ...] = ()
    rules: str = "common"
    ablation: Ablation | None = None
    mup: int | None = None


def plan_study(request: StudyRequest, progress: Progress | None = None) -> Study:
    """Check everything that can be checked and prepare the data; nothing is written to the study's folder.

    Raises `InputError` for whatever cannot be: unknown arms or settings, sizes that do not divide, a corpus that is too
    small (with the epochs that it would take), an output folder of another study.
    """
    execution = Execution(device=request.device, dtype=request.dtype, compile=request.compile, threads=1)  # type: ignore[arg-type]
    if request.cluster is not None:
        check_cluster(request.cluster, request.device)
    resolved = execution.resolve()
    execution = execution.replace(device=resolved.device.type)  # each worker sees one device
    task = None if request.task is None else parse_task(request.task)
    _check_judgement(request)
    design = _design(request, resolved.device.type, task)
    vocab = task.ids if task is not None else design.vocab or 1024
    _build(request, design, vocab)  # impossible arms are found before the corpus is read
    workload = _workload(request, design, progress)
    arms, baseline, ablation = _build(request, design, int(workload.record["vocab"]))
    data = dict(workload.record)
    mixture: Mix = ()
    if isinstance(workload, Text):
        mixture = resolve(request.mix, workload.dataset.train) if request.mix else ()
        data["epochs"] = _epochs(request, design, arms, workload, mixture)
    if request.state is not None:
        data["state"] = state_of(arms, baseline, design.context)
    study = Study(
        title=" · ".join(arm.label for arm in arms) if not ablation else title_of(ablation),
        arms=tuple(arms),
        baseline=baseline,
        design=design,
        data=data,
        mixture=mixture,
        ablation=ablation,
        execution=execution,
        device=resolved.device.type,
        dtype=resolved.dtype,
        margin=request.margin,
        primary=request.primary,
        reference=request.reference,
        probes=request.probes,
        looks=request.looks,
        workload=workload,
    )
    for arm in arms:  # an impossible budget or schedule is found before anything runs
        for settings in study.all_settings(arm, 1e-3, 1).values():
            workload.check(arm.spec, settings)
            check_mup(arm.spec, settings)
        study.trial_settings(arm, 1e-3, design.tuning_fraction)
    check_folder(study, request.out)
    if request.mup is not None and not (request.out / "study.json").is_file():
        check_carried(arms, request.mup, None if progress is None else lambda words: progress(words, 0.0))
    return study


def _workload(request: StudyRequest, design: Preset, progress: Progress | None) -> Workload:
    """The task that was named, or the corpus as token shards."""
    if request.task is not None:
        return Synthetic(parse_task(request.task), ITEMS if request.items is None else request.items)
    corpus = read_corpus(request.data, request.text_field, request.set_field)
    choice = request.tokenizer if request.tokenizer is not None else design.vocab
    return Text(prepare(corpus, choice, design.context, design.evaluation_tokens, request.cache, progress))


def _epochs(request: StudyRequest, design: Preset, arms: Sequence[Arm], text: Text, mixture: Mix) -> float:
    """How often the longest run reads the corpus; too often is refused."""
    longest = max(round(design.tokens * design.longest * arm.token_factor) for arm in arms)
    sampler = make_sampler(text.dataset.train, design.context, 1, mixture)
    steps = max(1, round(longest / (design.batch_size * design.context)))
    try:
        sampler.check_epochs(steps, design.batch_size, request.max_epochs)
    except InputError as error:
        raise InputError(f"{error}; the longest horizon is {design.longest:g} x --tokens") from None
    return sampler.epochs(steps, design.batch_size)


def _design(request: StudyRequest, device: str, task: Task | None) -> Preset:
    design = preset(request.preset, device)
    if task is None:
        for name in ("items", "state"):
            if getattr(request, name) is not None:
                raise InputError(f"{name} belongs to a task; name one with --task, or leave it out")
    else:
        design = for_task(design, task.span)
        for name, given in (
            ("data", request.data),
            ("tokenizer", request.tokenizer),
            ("vocab", request.vocab),
            ("evaluation_tokens", request.evaluation_tokens),
            ("mix", request.mix or None),
            ("reference", request.reference),
            ("probe", request.probes or None),
            ("looks", request.looks if request.looks > 1 else None),
        ):
            if given is not None:
                raise InputError(f"{name} belongs to a text, and the task {request.task} is named; give one of the two")
        if request.settings.get("context", task.span) != task.span:
            given, span = request.settings["context"], task.span
            raise InputError(f"context is {given}, but an item of {task.name} has {span} tokens; leave it out")
    names = ("tokens", "seeds", "evaluation_tokens", "batch_size", "trials", "blocks", "vocab")
    changes = {name: getattr(request, name) for name in names if getattr(request, name) is not None}
    for name in ("layers", "width", "context"):
        if name in request.settings:
            changes[name] = request.settings[name]
    if request.ablation is None:
        changes = {**sizes_given(request.arms, request.baseline), **changes}
    for name, value in changes.items():
        if not isinstance(value, int) or value < 1:
            raise InputError(f"{name}: {value!r} given; a whole number of at least 1")
    design = replace(design, **changes)
    check_probes(request.probes, design.batch_size, design.seeds)
    check_looks(request.looks, design.seeds)
    return design


def _check_judgement(request: StudyRequest) -> None:
    """What decides the verdict."""
    if not 0 < request.margin < math.inf:
        raise InputError(f"margin: {request.margin} given; a share above 0, e.g. 0.03")
    if request.primary not in (None, "iso_token", "iso_flop", "iso_time"):
        raise InputError(f"primary: {request.primary!r} given; iso_token, iso_flop or iso_time")
    if request.reference is not None and not 0 < request.reference < math.inf:
        raise InputError(f"reference: {request.reference} given; a held-out loss in nats a token, above 0")


def _build(request: StudyRequest, design: Preset, vocab: int) -> tuple[list[Arm], str, Mapping[str, Any]]:
    """The arms, the baseline's label, and what they take apart, if they do."""
    lattice = 8 if design.width < 512 else 64
    settings = {name: value for name, value in request.settings.items() if name != "vocab"}
    if request.ablation is not None:
        gap = request.allow_param_gap
        return ablation_arms(request.ablation, design, vocab, settings, lattice=lattice, allow_gap=gap)
    arms, baseline = build_arms(
        request.arms,
        request.baseline,
        design,
        vocab,
        settings,
        lattice=lattice,
        allow_gap=request.allow_param_gap,
        state=request.state,
    )
    return carried(with_papers(arms, request.rules), request.mup), baseline, {}
