"""From what a user asks to a ladder: everything that can be checked is checked before anything runs."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from windtunnel.comparison.cluster import check_cluster
from windtunnel.comparison.ladders.design import FEWEST_STEPS, Design, design
from windtunnel.comparison.ladders.ladder import Ladder, Rung, check_folder
from windtunnel.comparison.ladders.sizes import Sizing
from windtunnel.comparison.study import Study
from windtunnel.data.building import Progress
from windtunnel.data.corpus import read_corpus
from windtunnel.data.documents import SET_FIELD
from windtunnel.data.mixture import Mix, make_sampler, resolve
from windtunnel.data.shards import prepare
from windtunnel.errors import InputError
from windtunnel.execution import Execution
from windtunnel.training.workload import Text

_CHANGES = (
    "budgets", "sizes", "seeds", "tokens_per_parameter", "context", "batch_size", "evaluation_tokens", "trials"
)  # fmt: skip
_PLANNED = ("width", "hidden", "heads")


@dataclass(frozen=True)
class LadderRequest:
    """What a user asks for. `settings` hold for every arm and size; what is not None replaces the preset's."""

    arms: tuple[str, ...]
    out: Path
    preset: str | None = None
    budgets: tuple[float, ...] | None = None
    sizes: int | None = None
    seeds: int | None = None
    tokens_per_parameter: float | None = None
    context: int | None = None
    batch_size: int | None = None
    evaluation_tokens: int | None = None
    trials: int | None = None
    baseline: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    data: tuple[Path | str, ...] | None = None
    text_field: str = "text"
    set_field: str = SET_FIELD
    mix: Mapping[str, str] = field(default_factory=dict)
    tokenizer: Any = None
    vocab: int | None = None
    max_epochs: float = 4.0
    allow_param_gap: bool = False
    device: str = "auto"
    dtype: str = "auto"
    compile: bool = False
    workers: int | None = None
    cluster: str | None = None
    cache: Path | None = None
    packages: tuple[str, ...] = ()


def plan_ladder(request: LadderRequest, progress: Progress | None = None) -> Ladder:
    """Check everything that can be checked and prepare the data; nothing is written to the ladder's folder.

    Raises `InputError` for whatever cannot be: ladders too short for a fit, budgets that no size can meet, a corpus
    that is too small, an output folder of another ladder; each with the smallest change that would do.
    """
    execution = Execution(device=request.device, dtype=request.dtype, compile=request.compile, threads=1)  # type: ignore[arg-type]
    if request.cluster is not None:
        check_cluster(request.cluster, request.device)
    resolved = execution.resolve()
    plan = _design(request, resolved.device.type)
    choice = request.tokenizer or request.vocab or plan.vocab or "bytes"
    settings = {name: value for name, value in request.settings.items() if name != "layers"}
    vocab = choice if isinstance(choice, int) else 257
    Sizing(request.arms, request.baseline, plan, vocab, settings)  # unknown arms are found before the corpus is read
    corpus = read_corpus(request.data, request.text_field, request.set_field)
    text = Text(prepare(corpus, choice, plan.context, plan.evaluation_tokens, request.cache, progress))
    mixture: Mix = resolve(request.mix, text.dataset.train) if request.mix else ()
    sizing = Sizing(request.arms, request.baseline, plan, text.vocab, settings)
    studies = [
        Study(
            title=f"size {number}",
            arms=tuple(arms),
            baseline=sizing.baseline,
            design=plan.preset(len(arms[0].spec.layers), arms[0].spec.width, plan.step_tokens),
            data=dict(text.record),
            mixture=mixture,
            execution=execution.replace(device=resolved.device.type),  # each worker sees one device
            device=resolved.device.type,
            dtype=resolved.dtype,
            margin=0.03,
            primary=None,
            workload=text,
        )
        for number, arms in enumerate(_arms(sizing, plan, request.allow_param_gap), 1)
    ]
    ladder = Ladder(plan, tuple(studies))
    _check_steps(ladder)
    _check_epochs(ladder, text, request.max_epochs)
    for rung in ladder.all_rungs():
        text.check(ladder.arm(rung).spec, ladder.run_settings(rung, 1e-3, 1))
    check_folder(ladder, request.out)
    return ladder


def _design(request: LadderRequest, device: str) -> Design:
    for name in _PLANNED:
        if name in request.settings:
            raise InputError(f"{name}: a ladder plans its own sizes; leave it out (layers may be fixed for all)")
    changes = {name: getattr(request, name) for name in _CHANGES if getattr(request, name) is not None}
    if "layers" in request.settings:
        changes["layers"] = request.settings["layers"]
    return replace(design(request.preset, device), **changes).check()


def _arms(sizing: Sizing, plan: Design, allow_gap: bool) -> list[list[Any]]:
    """All arms at every size: steps of equal factors, so placed that the budgets' best sizes are in their middle."""
    logs = [
        math.log(sizing.best_parameters(budget)) - offset * math.log(plan.size_step)
        for budget, offset in zip(plan.budgets, plan.offsets, strict=True)
    ]
    middle = math.exp(sum(logs) / len(logs))
    count = plan.offsets[-1] + plan.sizes
    return [
        sizing.arms_at(middle * plan.size_step ** (index - plan.middle), allow_gap=allow_gap) for index in range(count)
    ]


def _check_steps(ladder: Ladder) -> None:
    """Refuse budgets that train a size for too few steps."""
    rung = min(ladder.all_rungs(), key=ladder.tokens)
    plan, tokens = ladder.design, ladder.tokens(rung)
    fewest = FEWEST_STEPS * plan.step_tokens
    if tokens < fewest:
        budget = plan.budgets[rung.budget]
        needed = 1.02 * budget * (fewest / max(tokens, plan.step_tokens)) ** 2  # D grows with sqrt(C)
        raise InputError(
            f"budgets: at {budget:.3g} FLOPs the largest size of {rung.arm} would be trained for "
            f"{tokens // plan.step_tokens} steps, at least {FEWEST_STEPS} are needed: begin at "
            f"{needed:.3g} FLOPs, or take a --batch of {max(1, plan.batch_size * tokens // fewest)}"
        )


def _check_epochs(ladder: Ladder, text: Text, most: float) -> None:
    """Refuse to read the corpus, or a set of it, too often."""
    rung: Rung = max(ladder.all_rungs(), key=ladder.tokens)
    plan, tokens = ladder.design, ladder.tokens(rung)
    sampler = make_sampler(text.dataset.train, plan.context, 1, ladder.sizes[0].mixture)
    try:
        sampler.check_epochs(tokens // plan.step_tokens, plan.batch_size, most)
    except InputError as error:
        budget, epochs = plan.budgets[rung.budget], sampler.epochs(tokens // plan.step_tokens, plan.batch_size)
        enough = 0.98 * budget * (most / epochs) ** 2  # D grows with sqrt(C)
        raise InputError(
            f"{error}; that is the smallest size at {budget:.3g} FLOPs: end at {enough:.2g} FLOPs, bring "
            f"{epochs / most:.1f}x the text, or pass --max-epochs {math.ceil(epochs)}"
        ) from None
