"""A run from the command line: everything checked, said, done and reported."""

from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import typer

from windtunnel.cli.beginnings import Beginning, beginning
from windtunnel.cli.figures import grouped, short
from windtunnel.cli.progress import stage_progress, training_progress
from windtunnel.cli.screen import Screen, facts, table
from windtunnel.cli.sources import EVALUATION_TOKENS, no_task, one_of, read_dataset, read_task
from windtunnel.data.mixture import make_sampler, resolve
from windtunnel.data.shards import Dataset
from windtunnel.distributed.mesh import Mesh
from windtunnel.distributed.start import local_device, restarted, team
from windtunnel.distributed.team import Team
from windtunnel.errors import InputError
from windtunnel.execution import Execution, hardware_name
from windtunnel.ledger import n_body
from windtunnel.root import Model
from windtunnel.training.fitting import check_team
from windtunnel.training.profile import read_operators
from windtunnel.training.progress import duration
from windtunnel.training.run import RunResult, train
from windtunnel.training.settings import TrainingSettings
from windtunnel.training.workload import Text, Workload
from windtunnel.values import parse_settings

_PROVISIONAL_VOCAB = 257


@dataclass(frozen=True, kw_only=True)
class Request:
    """What was asked for. training: fields of `TrainingSettings`; None leaves one to the recipe or the default.

    begin: a recipe's name, or a run's folder. saving: options of `train` on checkpoints, which change no weights.
    """

    begin: str
    out: Path
    data: tuple[str, ...]
    text_field: str
    set_field: str
    mix: dict[str, str]
    task: str | None
    items: int | None
    vocab: int | str | None
    tokenizer: Path | None
    context: int | None
    settings: tuple[str, ...]
    training: dict[str, Any]
    rules: str
    max_epochs: float
    execution: Execution
    resume: bool
    mesh: str | None
    patience: float
    packages: tuple[str, ...] = ()
    mup: int | None = None
    saving: dict[str, Any] = field(default_factory=dict)
    profile: int | None = None


class Plan(NamedTuple):
    """A run that can begin; `remarks` say where the recipe's own training leaves the common settings.

    epochs: how often it goes through the training text; None where there is no end to the data.
    """

    begin: Beginning
    spec: Model
    settings: TrainingSettings
    workload: Workload
    epochs_by_set: dict[str, float]
    remarks: list[str]

    @property
    def epochs(self) -> float | None:
        """How often the run goes through the data, or through the set that it repeats most; None for a task."""
        return max(self.epochs_by_set.values(), default=None)


def train_and_report(request: Request, as_json: bool) -> None:
    """Carry a request out, in every process that torchrun started. Exit code 1 if the run diverged."""
    mesh = None if request.mesh is None else Mesh.parse(request.mesh)
    if not request.patience > 0:
        raise InputError(f"--patience: must be above 0 seconds, got {request.patience:g}")
    execution = request.execution.replace(device=local_device(request.execution.device))
    request = replace(request, execution=execution)
    if restarted():  # what the command said was done by the first start
        request = replace(request, resume=True, saving={**request.saving, "start": None})
    with team(mesh, str(execution.resolve().device), request.patience) as members:
        _train(request, members, as_json)


def _train(request: Request, members: Team, as_json: bool) -> None:
    screen = Screen(as_json, silent=not members.lead)
    plan = make_plan(request, members)
    screen.say(facts(_announcement(request, plan, members)))
    with training_progress(request.begin) if members.lead else nullcontext() as progress:
        result = train(
            plan.spec,
            plan.settings,
            plan.workload,
            request.out,
            request.execution,
            request.resume,
            progress=progress,
            profile=request.profile,
            team=members,
            origin=plan.begin.origin,
            **request.saving,
        )
    profiled = request.profile is not None and (request.out / "profile").is_dir()
    screen.finish(
        _record(request, plan, result) | ({"profile": read_operators(request.out)} if profiled else {}),
        facts(_outcome(request, plan, result)),
        *([_slowest(request.out)] if profiled else []),
    )
    if result.diverged:
        raise typer.Exit(1)


def make_plan(request: Request, members: Team) -> Plan:
    """Check what can be checked before the data is read, then prepare the data; the run folder is not touched."""
    request.execution.resolve()
    if request.task is not None:
        return _plan_of_task(request, request.task)
    no_task(items=request.items)
    begin = _beginning(request)
    choice = begin.tokenizer()
    provisional = begin.spec(_PROVISIONAL_VOCAB)
    typed = {**request.training, "evaluation_tokens": request.training["evaluation_tokens"] or EVALUATION_TOKENS}
    settings, remarks = begin.settings(typed, provisional)
    check_team(provisional, settings, request.execution, members)
    _check_folder(request)

    def read() -> Dataset:
        with stage_progress("data") if members.lead else nullcontext(_unseen) as progress:
            return read_dataset(
                request.data,
                request.text_field,
                request.set_field,
                choice,
                settings.context,
                settings.evaluation_tokens or 0,
                progress,
            )

    dataset = members.after_the_lead(read)
    if request.mix:
        settings = settings.replace(mixture=resolve(request.mix, dataset.train))
    sampler = make_sampler(dataset.train, settings.context, settings.data_seed, settings.mixture)
    drawn = settings.sequences_at(settings.steps).start
    sampler.check_epochs(drawn, 1, request.max_epochs)
    spec = begin.spec(int(dataset.record["vocab"]))
    return Plan(begin, spec, settings, Text(dataset), sampler.epochs_by_set(drawn), remarks)


def _plan_of_task(request: Request, text: str) -> Plan:
    """A run on a synthetic task, whose items say how long a sequence is and how many tokens there are."""
    workload = read_task(
        text,
        request.items,
        data=request.data,
        mix=tuple(request.mix),
        tokenizer=request.tokenizer,
        vocab=one_of("vocab", request.vocab, parse_settings(request.settings).get("vocab")),
        evaluation_tokens=request.training["evaluation_tokens"],
    )
    span = workload.task.span
    begin = _beginning(request)
    spec = begin.spec(workload.vocab, span)
    settings, remarks = begin.settings({**request.training, "context": span}, spec)
    workload.check(spec, settings)
    _check_folder(request)
    assert workload.record, "the held-out items are drawn"
    return Plan(begin, spec, settings, workload, {}, remarks)


def _check_folder(request: Request) -> None:
    if (request.out / "run.json").is_file() and not request.resume:
        raise InputError(f"{request.out}: already holds a run; go on with it by --resume, or name another folder")


def _unseen(stage: str, share: float) -> None:
    """Progress of a process that shows none."""


def _beginning(request: Request) -> Beginning:
    """What was named; --set vocab and --set context mean the options."""
    return beginning(
        request.begin,
        request.settings,
        request.vocab,
        request.tokenizer,
        request.context,
        request.rules,
        request.packages,
        request.mup,
    )


def _announcement(request: Request, plan: Plan, members: Team) -> dict[str, str]:
    spec, settings, record = plan.spec, plan.settings, plan.workload.record
    resolved = request.execution.resolve()
    rate = "given" if request.training["learning_rate"] is not None else plan.begin.rate(spec)
    lines = {
        "model": f"{request.begin}: {spec.depth} layers, width {spec.width}, {short(n_body(spec))} body "
        f"parameters, vocab {spec.vocab}{'' if request.mup is None else f', under muP from width {request.mup}'}",
        "data": _data(record),
        "budget": f"{grouped(settings.tokens_before(settings.steps))} tokens"
        f"{'' if plan.epochs is None else f', {plan.epochs:.2f} epochs'}: "
        f"{settings.steps} steps of {_batches(settings)} x {settings.context}",
        "training": f"{settings.optimiser}, learning rate {settings.learning_rate:.3g} ({rate}), {settings.schedule}, "
        f"warm-up {settings.warmup:g}, weight decay {settings.weight_decay:g}",
    }
    if settings.z_loss:
        lines["training"] += f", z-loss {settings.z_loss:g}"
    if settings.skips:
        lines["training"] += ", passing over " + ", ".join(f"{start}:{stop}" for start, stop in settings.skips)
    if settings.mixture:
        lines["mixture"] = "; ".join(
            f"{share.set} {share.weight:.3g} ({plan.epochs_by_set[share.set]:.2f} epochs)" for share in settings.mixture
        )
    if plan.remarks:
        lines["its own"] = "; ".join(plan.remarks)
    lines["runs on"] = f"{resolved.device} ({hardware_name(resolved.device)}), {resolved.dtype}"
    lines["runs on"] += f", {resolved.threads} threads" if resolved.device.type == "cpu" else ""
    lines["runs on"] += ", compiled" if resolved.compile else ""
    if members.size > 1:
        hosts = len({name.partition(",")[0] for name in members.names})
        lines["runs on"] += f"; {members.size} processes on {hosts} host{'s' * (hosts > 1)}: {members.mesh}"
    lines["folder"] = str(request.out)
    return lines


def _data(record: dict[str, Any]) -> str:
    if "task" in record:
        return f"{record['name']}: {record['source']}; chance {record['chance']:.3g}"
    return f"{record['source']}; {short(record['train_tokens'])} training tokens ({record['tokenizer']})"


def _batches(settings: TrainingSettings) -> str:
    """The sequences of a step, in all stages: 4, 8, then 16."""
    *first, last = dict.fromkeys(settings.batch_at(step) for step in range(settings.steps))
    return f"{', '.join(map(grouped, first))}, then {grouped(last)}" if first else grouped(last)


def _outcome(request: Request, plan: Plan, result: RunResult) -> dict[str, str]:
    if result.diverged:
        return {"diverged": f"the loss left its range; {request.out}/metrics.jsonl shows where. Try a smaller --lr"}
    last = result.horizons["1.0"]
    sets = {name: f"{each['loss']:.4f}" for name, each in last.get("sets", {}).items()}
    by_set = {"by set": ", ".join(f"{name} {loss}" for name, loss in sets.items())} if sets else {}
    found = {"spikes": "; ".join(map(_rewound, result.rewinds))} if result.rewinds else {}
    compiled = f", compilation {duration(result.compile_seconds)}" if result.compile_seconds else ""
    return {
        **_scored(last),
        **by_set,
        "speed": f"{grouped(_rate(plan, result))} tokens/s, {duration(result.seconds)}{compiled}, "
        f"{100 * result.data_seconds / max(result.seconds, 1e-9):.2g} % of it waiting for data",
        **found,
        "folder": str(request.out),
    }


def _scored(last: dict[str, Any]) -> dict[str, str]:
    """The held-out scores in words."""
    if "accuracy" not in last:
        return {
            "loss": f"{last['loss']:.4f} nats a token, {last['bits_per_byte']:.4f} bits a byte, on "
            f"{grouped(last['evaluated_tokens'])} held-out tokens"
        }
    solved = "not solved" if last["solved_at"] is None else f"solved at step {grouped(last['solved_at'])}"
    rungs = [f"{rung['label']} {rung['accuracy']:.3f}" for rung in last["rungs"][1:]]
    beyond = [f"beyond its positions: {', '.join(last['beyond'])}"] if last["beyond"] else []
    return {
        "accuracy": f"{last['accuracy']:.4f} of the answers, {last['whole']:.4f} of {grouped(last['items'])} held-out "
        f"items whole; chance {last['chance']:.3g}; {solved}",
        "loss": f"{last['loss']:.4f} nats an answer",
        **({"tested at": "; ".join([*rungs, *beyond])} if rungs or beyond else {}),
    }


def _slowest(folder: Path, rows: int = 12) -> Any:
    """The operators that took longest in the recorded steps."""
    found = read_operators(folder)
    lines = [
        [each["operator"], grouped(each["calls"]), f"{(each['device_us'] or each['cpu_us']) / 1000:.1f}", share]
        for each in found["operators"][:rows]
        for share in [f"{100 * each['share']:.0f} %"]
    ]
    title = f"{found['steps']} steps recorded; {folder}/profile/trace.pt.trace.json opens in Perfetto and TensorBoard"
    return table(["operator", "calls", "own ms", "share"], lines, numeric=(1, 2, 3), title=title)


def _rewound(account: dict[str, Any]) -> str:
    first, stop = account["sequences"]
    return f"at step {account['spike']}: back to {account['to']}, passing over sequences {first:,} to {stop:,}"


def _record(request: Request, plan: Plan, result: RunResult) -> dict[str, Any]:
    last = result.horizons["1.0"]
    return {
        "folder": str(request.out),
        ("recipe" if plan.begin.origin is None else "run"): request.begin,
        "fingerprint": plan.spec.fingerprint(),
        "loss": last["loss"],
        **{name: last[name] for name in ("bits_per_byte", "accuracy", "whole", "chance", "solved_at") if name in last},
        "tokens_per_second": _rate(plan, result),
        "epochs": plan.epochs,
        **({"epochs_by_set": plan.epochs_by_set} if plan.settings.mixture else {}),
        "settings": plan.settings.to_json(),
        "own_settings": plan.remarks,
        "data": plan.workload.record,
        "result": result.to_json(),
    }


def _rate(plan: Plan, result: RunResult) -> float:
    return plan.settings.tokens_before(plan.settings.steps) / result.seconds if result.seconds else 0.0
