"""One arm's part of `results.json`, from its run folders."""

import inspect
import math
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from windtunnel.checkpoint import read_json
from windtunnel.comparison.arms import Arm
from windtunnel.comparison.given import paper_of
from windtunnel.comparison.published import published_values
from windtunnel.comparison.study import Study, costs, shorter_folder
from windtunnel.comparison.tuning import Trial, expected_best, lr_sensitivity
from windtunnel.comparison.within import curve, end_of_training
from windtunnel.spec import Spec, difference, fields
from windtunnel.statistics import mean_interval
from windtunnel.training.settings import TrainingSettings

_BY_DOCUMENT = ("nats", "tokens", "bytes", "documents", "answers", "correct")  # of documents, or of a task's items


@dataclass(frozen=True)
class ArmRuns:
    """The finished runs of an arm, one value a seed.

    losses, bits: by horizon. documents: arrays at D. fitted: loss on the batches just before D, None where not logged.
    """

    seeds: list[int]
    losses: dict[float, list[float]]
    bits: dict[float, list[float | None]]
    documents: list[dict[str, Any]]
    fitted: list[float | None]
    results: list[dict[str, Any]]
    curve: dict[str, list[float]]


def read_runs(study: Study, arm: Arm, folder: Path) -> ArmRuns:
    """Read what has finished; missing seeds are left out (and reported as failures by the engine)."""
    whole = [[folder / name for name in study.reported_settings(arm, 1e-3, seed)] for seed in study.seeds(arm)]
    done = [
        seed
        for seed, runs in zip(study.seeds(arm), whole, strict=True)
        if all((run / "result.json").is_file() for run in runs)
    ]
    results = [_with_shorter(study, arm, folder, seed) for seed in done]
    keys = {horizon: study.horizon_key(horizon) for horizon in study.design.horizons}
    reported = [reported_run(study, arm, folder, seed) for seed in done]
    return ArmRuns(
        seeds=done,
        losses={horizon: [one["horizons"][key]["loss"] for one in results] for horizon, key in keys.items()},
        bits={h: [one["horizons"][key].get("bits_per_byte") for one in results] for h, key in keys.items()},
        documents=[_documents(run, key) for run, key in reported],
        fitted=[end_of_training(run / "metrics.jsonl", float(key)) for run, key in reported],
        results=results,
        curve=curve([folder / f"seed-{seed}" / "metrics.jsonl" for seed in done]) if done else {},
    )


def _with_shorter(study: Study, arm: Arm, folder: Path, seed: int) -> dict[str, Any]:
    """A run's result, with the horizons that were runs of their own."""
    result = read_json(folder / f"seed-{seed}" / "result.json")
    for horizon in study.shorter_settings(arm, 1e-3, seed):
        own = read_json(folder / shorter_folder(horizon, seed) / "result.json")
        result["horizons"][study.horizon_key(horizon)] = own["horizons"]["1.0"]
        result["diverged"] = result["diverged"] or own["diverged"]
    return result


def reported_run(study: Study, arm: Arm, folder: Path, seed: int) -> tuple[Path, str]:
    """The run that a seed is reported by at D, and that horizon's name in its result. folder: of the arm's runs."""
    if 1.0 in study.shorter_settings(arm, 1e-3, seed):
        return folder / shorter_folder(1.0, seed), "1.0"
    return folder / f"seed-{seed}", study.horizon_key(1.0)


def arm_entry(
    study: Study, arm: Arm, runs: ArmRuns, tuning: Mapping[str, Any], throughput: Mapping[str, Any]
) -> dict[str, Any]:
    """Everything that is reported of one arm."""
    counted = costs(study, arm)
    baseline = study.arm(study.baseline)
    loss = runs.losses[1.0]
    timed = throughput.get("arms", {}).get(arm.label, {})
    return {
        "label": arm.label,
        "recipe": arm.recipe,
        "paper": paper_of(arm.recipe),
        "n_body": counted.parameters.n_body,
        "n_body_active": counted.parameters.n_body_active,
        "param_gap": arm.matching.gap,
        "params": counted.parameters._asdict(),
        "flops_per_token": counted.training.model,
        "flops": {**counted.training._asdict(), "by_kernel": counted.flops_by_kernel},
        "ledger": [row._asdict() for row in counted.rows],
        "matching": {"knob": arm.matching.knob, "value": arm.matching.value, "gap": arm.matching.gap},
        "lr": tuning["lr"] * arm.lr_factor,
        "lr_at_edge": tuning["at_edge"],
        "untuned": tuning["untuned"],
        "lr_reason": tuning["reason"],
        **_sweep(study, arm, tuning),
        "loss": {**_interval(loss), "seeds": loss},
        **_bits(runs.bits[1.0]),
        **_gap(runs),
        "horizons": _horizons(study, arm, runs),
        **_sets(study, runs),
        "curve": runs.curve,
        "diverged": sum(one["diverged"] for one in runs.results),
        "nonfinite_steps": sum(one["nonfinite_steps"] for one in runs.results),
        "train_seconds": float(np.mean([one["seconds"] for one in runs.results])),
        "tokens_per_second": timed.get("tokens_per_second"),
        "throughput": _throughput(arm, baseline, timed, throughput, study),
        "state_bytes": {str(length): size for length, size in _state_bytes(study, arm).items()},
        "batch_hash": runs.results[0]["batch_hash"],
        "own_settings": _own_settings(study, arm),
        "spec_difference": [list(row) for row in difference(baseline.spec, arm.spec)],
        "minimality": _minimality(study, arm, baseline),
        "spec": arm.spec.to_json(),
        "fingerprint": arm.spec.fingerprint(),
        "control": arm.control,
        "training": "paper" if arm.published else "common",
        "warnings": list(arm.warnings),
    }


def _documents(run: Path, key: str) -> dict[str, Any]:
    with np.load(run / "documents.npz", allow_pickle=False) as stored:
        named = {name.removeprefix(f"h{key}/"): name for name in stored.files if name.startswith(f"h{key}/")}
        return {name: stored[named[name]] for name in _BY_DOCUMENT if name in named}


def _bits(values: list[float | None]) -> dict[str, float]:
    """Bits per byte over the seeds; nothing for a task, which has no bytes."""
    known = [value for value in values if value is not None]
    return {"bits_per_byte": float(np.mean(known))} if known else {}


def _interval(values: list[float]) -> dict[str, Any]:
    interval = mean_interval(np.asarray(values))
    return {"mean": interval.value, "ci95": [end if math.isfinite(end) else None for end in interval.ends]}


def _gap(runs: ArmRuns) -> dict[str, Any]:
    """What the held-out text costs more at D than the batches just before it; nothing where a run diverged."""
    gaps = [loss - own for loss, own in zip(runs.losses[1.0], runs.fitted, strict=True) if own is not None]
    if len(gaps) < len(runs.seeds) or any(one["diverged"] for one in runs.results):
        return {}
    return {"training_gap": {**_interval(gaps), "seeds": gaps}}


def _horizons(study: Study, arm: Arm, runs: ArmRuns) -> dict[str, Any]:
    return {
        f"{horizon:g}": {
            "tokens": round(study.design.tokens * horizon * arm.token_factor),
            "loss": {**_interval(runs.losses[horizon]), "seeds": runs.losses[horizon]},
            **_bits(runs.bits[horizon]),
        }
        for horizon in study.design.horizons
    }


def _sets(study: Study, runs: ArmRuns) -> dict[str, Any]:
    """The loss on each set at D, over seeds; nothing where the held-out text is all one set."""
    finals = [one["horizons"][study.horizon_key(1.0)].get("sets", {}) for one in runs.results]
    if not finals or not finals[0]:
        return {}
    return {"sets": {name: _interval([each[name]["loss"] for each in finals]) for name in finals[0]}}


def _sweep(study: Study, arm: Arm, tuning: Mapping[str, Any]) -> dict[str, Any]:
    rows = tuning["rows"]
    compared = [row for row in rows if row["horizon"] == study.design.tuning_fraction]
    trials = [Trial(row["lr"], row["loss"], row["diverged"]) for row in compared]
    rule = study.rule(arm, tuning["initial_loss"] or float("inf"))
    sensitivity = lr_sensitivity(trials, rule)
    return {
        "trials": rows,
        "lr_sensitivity": sensitivity.value,
        "lr_sensitivity_octaves": sensitivity.octaves,
        "expected_best": expected_best([rule.score(trial) for trial in trials]),
    }


def _throughput(
    arm: Arm, baseline: Arm, timed: Mapping[str, Any], throughput: Mapping[str, Any], study: Study
) -> dict[str, Any]:
    if not timed:
        return {}
    ours, theirs = costs(study, arm).flops_per_token, costs(study, baseline).flops_per_token
    ratio, ideal = math.exp(timed["log_ratio"]), theirs / ours
    error = timed["log_ratio_se"]
    limited = ratio < 0.7 * ideal
    return {
        **timed,
        "ratio": ratio,
        "ci95": None if error is None else [ratio * math.exp(sign * 2.36 * error) for sign in (-1, 1)],
        "ideal_ratio": ideal,
        "mfu": ours * timed["tokens_per_second"] / throughput["peak_flops"],
        "note": "speed limited by implementation, not mechanism" if limited else "",
    }


def _state_bytes(study: Study, arm: Arm) -> dict[int, int]:
    """Decoding state of one sequence at 128, 256, ... up to 8 contexts, and at 1024 in any case."""
    with torch.device("meta"):
        model = arm.spec.build()
    lengths = {*costs(study, arm).state_bytes, 1024}
    return {length: model.state_bytes(length) for length in sorted(lengths)}


def _own_settings(study: Study, arm: Arm) -> dict[str, list[Any]]:
    common = {"weight_decay": TrainingSettings.weight_decay, "warmup": study.design.warmup}
    own = {"weight_decay": arm.training.weight_decay, "warmup": arm.training.warmup}
    found: dict[str, list[Any]] = {
        name: [common[name], value, arm.training.why] for name, value in own.items() if value is not None
    }
    if arm.published:
        shared = {**common, "cooldown": study.design.cooldown}
        found = {
            name: [_plain(shared.get(name, getattr(TrainingSettings, name))), _plain(value), "as its paper trained"]
            for name, value in published_values(arm).items()
        }
    controls = {"lr_factor": arm.lr_factor, "token_factor": arm.token_factor, "seed_offset": arm.seed_offset}
    for name, value in controls.items():
        if value != (0 if name == "seed_offset" else 1.0):
            found[name] = [0 if name == "seed_offset" else 1.0, value, "a control: a departure on purpose"]
    return found


def _plain(value: Any) -> Any:
    """A setting's value as a report can show it: stages of a ramp in words."""
    if isinstance(value, tuple):
        return ", ".join(str(each) for each in value) or "none"
    return value


def _minimality(study: Study, arm: Arm, baseline: Arm) -> dict[str, Any]:
    context = study.design.context
    ours, theirs = costs(study, arm), costs(study, baseline)
    before, after = _parts(baseline.spec), _parts(arm.spec)
    added = sorted(set(after) - set(before))
    known = {name for part in before.values() for name in part}
    return {
        "parameters": ours.parameters.n_total - theirs.parameters.n_total,
        "body_parameters": ours.parameters.n_body - theirs.parameters.n_body,
        "settings": sum(len(set(after[kind]) - known) for kind in added),
        "flops": ours.training.model / theirs.training.model,
        "state": ours.state_bytes[context] / theirs.state_bytes[context] if theirs.state_bytes[context] else None,
        "parts_added": added,
        "parts_removed": sorted(set(before) - set(after)),
        "lines": sum(_lines(kind) for kind in _classes(arm.spec) if kind.kind in added),
    }


def _parts(spec: Spec) -> dict[str, tuple[str, ...]]:
    """Kinds in a spec, with the names of their fields."""
    return {part.kind: tuple(name for name, _ in fields(part)) for part in _walk(spec)}


def _classes(spec: Spec) -> set[type[Spec]]:
    return {type(part) for part in _walk(spec)}


def _walk(value: Any) -> Iterator[Spec]:
    if isinstance(value, Spec):
        yield value
        for _, item in fields(value):
            yield from _walk(item)
    elif isinstance(value, tuple):
        for item in value:
            yield from _walk(item)


def _lines(kind: type[Spec]) -> int:
    """Source lines of a part: its spec and its layer."""
    layer = getattr(sys.modules[kind.__module__], f"{kind.__name__}Layer", None)
    return sum(len(inspect.getsource(one).splitlines()) for one in (kind, layer) if one is not None)
