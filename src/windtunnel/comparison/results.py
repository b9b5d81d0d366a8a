"""From a study's files to `results.json`: nothing is trained, so the same files give the same results."""

import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

import windtunnel
from windtunnel.checkpoint import read_json, write_json
from windtunnel.comparison.ablation.effects import effects
from windtunnel.comparison.arm_results import ArmRuns, arm_entry, read_runs
from windtunnel.comparison.arms import Arm
from windtunnel.comparison.asking import asked
from windtunnel.comparison.caveats import caveats, held_equal, task_caveats
from windtunnel.comparison.documents import DocumentLosses
from windtunnel.comparison.headline import Question, Throughput, adjust, compare_arms
from windtunnel.comparison.horizons import Horizons
from windtunnel.comparison.power import detectable, detectable_speedup
from windtunnel.comparison.probe_results import probe_results
from windtunnel.comparison.study import Study, load_study
from windtunnel.comparison.task_results import ACCURACY_MARGIN, compare_task, judged, task_entry
from windtunnel.comparison.verdict import Evidence
from windtunnel.errors import WorkError
from windtunnel.ledger import n_body
from windtunnel.training.workload import SOLVED

RESULTS = "results.json"


@dataclass(frozen=True)
class Files:
    """What a finished study's folder holds, read once."""

    study: Study
    record: dict[str, Any]
    tuning: dict[str, Any]
    failures: list[dict[str, Any]]
    throughput: dict[str, Any]
    runs: dict[str, ArmRuns]
    probes: dict[str, Any] = field(default_factory=dict)

    def entry(self, label: str) -> dict[str, Any]:
        """The tuning of an arm, or of the arm whose trials it shares."""
        found: dict[str, Any] = self.tuning[self.study.arm(label).tuned_as]
        return found


def assemble(folder: Path, packages: tuple[str, ...] = ()) -> dict[str, Any]:
    """Recompute the results from a study's files and write them. Raises `WorkError` where no comparison is possible."""
    files = read_files(folder, packages)
    results = build_results(files)
    if found := asked(folder):
        results["evaluations"] = [{name: task[name] for name in task if name != "runs"} for task in found]
    write_json(folder / RESULTS, results)
    return results


def read_files(folder: Path, packages: tuple[str, ...] = ()) -> Files:
    """Everything that the results are made of."""
    study, record = load_study(folder, packages)
    if not (folder / "tuning.json").is_file():
        raise WorkError(f"{folder}: the study was stopped before its tuning ended; run the same compare command again")
    tuning = read_json(folder / "tuning.json")
    failures = [*_optional(folder / "failures.json").get("failures", tuning["failures"])]
    runs = {arm.label: read_runs(study, arm, folder / "runs" / arm.label) for arm in study.arms}
    losses = {label: dict(zip(one.seeds, one.losses[1.0], strict=True)) for label, one in runs.items()}
    probes = probe_results(study, folder, losses)
    return Files(study, record, tuning["arms"], failures, _optional(folder / "throughput.json"), runs, probes)


def build_results(files: Files) -> dict[str, Any]:
    """The whole of `results.json`."""
    study = files.study
    baseline = files.runs[study.baseline]
    if not baseline.seeds:
        errors = {failure["error"] for failure in files.failures if failure["arm"] == study.baseline}
        raise WorkError(
            f"the baseline {study.baseline} has no finished run: {'; '.join(errors) or 'stopped too early'}"
        )
    arms = {
        arm.label: arm_entry(study, arm, files.runs[arm.label], files.entry(arm.label), files.throughput)
        for arm in study.arms
        if files.runs[arm.label].seeds
    }
    comparisons = _comparisons(files, arms)
    results = {
        "study": study.id,
        "title": study.title,
        "created": files.record["created"],
        "preset": study.design.name,
        "baseline": study.baseline,
        "data": _data(study),
        "settings": _settings(study, comparisons),
        "versions": _versions(study, files.throughput),
        **({"power": _power(study, comparisons)} if study.task is None else {}),
        "arms": arms,
        "comparisons": comparisons,
        "held_equal": held_equal(study, files.runs),
        "failures": files.failures,
        "tried": files.record.get("tried", []),
        "notes": [warning for arm in study.arms for warning in arm.warnings],
    }
    if study.ablation:
        losses = {label: dict(zip(one.seeds, one.losses[1.0], strict=True)) for label, one in files.runs.items()}
        untuned = [label for label, arm in arms.items() if arm["untuned"]]
        results["ablation"] = effects(study.ablation, losses, untuned)
    if study.probes:
        results["probes"] = files.probes
    results["caveats"] = caveats(study, results) if study.task is None else task_caveats(study, results)
    return results


def _comparisons(files: Files, arms: dict[str, Any]) -> list[dict[str, Any]]:
    """Every variant that has runs against the baseline; a task's scores are put into the arms first."""
    study = files.study
    variants = [arm for arm in study.variants if arm.label in arms]
    if study.task is None:
        comparisons = [_compare(files, arms, arm) for arm in variants]
        return adjust(comparisons) if comparisons else []
    for label in arms:
        arms[label]["task"] = task_entry(study.arm(label), files.runs[label], arms[label]["trials"])
    base = files.runs[study.baseline]
    pairs = {arm.label: _pairs(study, arm, files.runs[arm.label], base) for arm in variants}
    return judged([compare_task(study, arms, arm, pairs[arm.label]) for arm in variants], arms)


def _compare(files: Files, arms: Mapping[str, Any], arm: Arm) -> dict[str, Any]:
    study = files.study
    variant, baseline = files.runs[arm.label], files.runs[study.baseline]
    count = min(len(variant.seeds), len(baseline.seeds))
    pairs = _pairs(study, arm, variant, baseline)
    horizons = Horizons.of(
        {h: [variant.losses[h][i] for i, _ in pairs] for h in study.design.horizons},
        {h: [baseline.losses[h][j] for _, j in pairs] for h in study.design.horizons},
    )
    ours, theirs = arms[arm.label], arms[study.baseline]
    question = Question(
        variant=arm.label,
        baseline=study.baseline,
        flop_ratio=ours["flops_per_token"] / theirs["flops_per_token"],
        margin=study.margin,
        comparisons=len([one for one in study.variants if one.label in arms]),
        primary=study.primary,
        alpha=study.alpha,
    )
    documents = DocumentLosses.of(
        np.stack([variant.documents[i]["nats"] for i, _ in pairs]),
        np.stack([baseline.documents[j]["nats"] for _, j in pairs]),
        baseline.documents[0]["tokens"],
    )
    evidence = Evidence(
        seeds=len(pairs),
        untuned=tuple(label for label in (study.baseline, arm.label) if arms[label]["untuned"]),
        parameter_gap=ours["param_gap"],
        horizons=len(horizons.fractions),
        tokens_per_parameter=study.design.tokens / n_body(study.arm(study.baseline).spec),
        second_knob=_second_knob(files, arm, float(horizons.difference(horizons.at_reference).mean())),
        weak_baseline=weaker(theirs["loss"], study.reference),
    )
    entry = compare_arms(
        question,
        horizons,
        evidence,
        documents,
        float(baseline.documents[0]["bytes"].sum()),
        _throughput(files, arm.label),
    )
    if count < study.seeds_at_look:
        entry["notes"] = [*entry["notes"], f"{count} of {study.seeds_at_look} seeds finished in both arms"]
    return entry


def weaker(loss: Mapping[str, Any], reference: float | None) -> bool:
    """Whether a baseline is surely worse than the registered loss: its mean, and the whole interval if it has one."""
    low = loss["mean"] if loss["ci95"][0] is None else loss["ci95"][0]
    return reference is not None and low > reference


def _second_knob(files: Files, arm: Arm, difference: float) -> bool | None:
    """Whether the arm's twin, matched by width, differs from the baseline in the same direction; None without one."""
    twin = next((one for one in files.study.arms if one.twin_of == arm.label), None)
    if twin is None or not files.runs[twin.label].seeds:
        return None
    other = np.mean(files.runs[twin.label].losses[1.0]) - np.mean(files.runs[files.study.baseline].losses[1.0])
    return bool(np.sign(other) == np.sign(difference))


def _pairs(study: Study, arm: Arm, variant: ArmRuns, baseline: ArmRuns) -> list[tuple[int, int]]:
    """Positions of runs to pair: the same place in both arms' lists of seeds."""
    mine, theirs = study.seeds(arm), study.seeds(study.arm(study.baseline))
    places = zip(mine, theirs, strict=True)
    return [
        (variant.seeds.index(one), baseline.seeds.index(other))
        for one, other in places
        if one in variant.seeds and other in baseline.seeds
    ]


def _throughput(files: Files, label: str) -> Throughput | None:
    timed = files.throughput.get("arms", {})
    if label not in timed or files.study.baseline not in timed:
        return None
    ours, theirs = timed[label], timed[files.study.baseline]
    variations = [one["block_cv"] for one in (ours, theirs) if one["block_cv"] is not None]
    variation, load, cores = max(variations, default=None), files.throughput.get("load"), files.throughput.get("cores")
    crowd = load / cores if load is not None and cores else None
    return Throughput(ours["log_ratio"], ours["log_ratio_se"], ours["blocks"], variation, crowd)


def _settings(study: Study, comparisons: list[dict[str, Any]]) -> dict[str, Any]:
    design = study.design
    return {
        "tokens": design.tokens,
        "context": design.context,
        "batch_size": design.batch_size,
        "vocab": study.data["vocab"],
        "seeds": study.seeds(study.arm(study.baseline)),
        "horizons": list(design.horizons),
        "warmup": design.warmup,
        "cooldown": design.cooldown,
        "evaluation_tokens": design.evaluation_tokens,
        "schedule": "wsd",
        "optimiser": "adamw",
        "settings": "paper" if any(arm.published for arm in study.arms) else "common",
        "trials": design.trials,
        "tuning_fraction": design.tuning_fraction,
        **_reading(study, comparisons),
    }


def _reading(study: Study, comparisons: list[dict[str, Any]]) -> dict[str, Any]:
    """How the figures were made."""
    if study.task is not None:
        return {"solved": SOLVED, "margin": ACCURACY_MARGIN}
    primary = {one["primary"] for one in comparisons}
    return {
        "estimator": "B",
        "margin": study.margin,
        "primary_track": next(iter(primary)) if len(primary) == 1 else "by arm",
    }


def _power(study: Study, comparisons: list[dict[str, Any]]) -> dict[str, Any]:
    """What the study could see: by the noise that it measured, and as it was announced from the preset's prior."""
    measured = [one["sd_paired"] for one in comparisons if one.get("sd_paired")]
    slopes = [one["slope"]["baseline"] for one in comparisons if one["slope"].get("baseline")]
    count = max(1, len(study.variants))
    announced = _visible(study, study.design.sigma, study.design.slope, count)
    if not measured or not slopes:
        return {**announced, "prior": True, "announced": announced}
    return {**_visible(study, float(np.median(measured)), slopes[0], count), "prior": False, "announced": announced}


def _visible(study: Study, sigma: float, slope: float, comparisons: int) -> dict[str, Any]:
    """The smallest difference, and the speedup that it stands for, seen with a power of 0.8."""
    if study.seeds_at_look < 2:
        return {"sigma": sigma, "slope": slope, "detectable_delta": None, "detectable_speedup": None}
    delta = detectable(study.seeds_at_look, alpha=study.alpha / comparisons) * sigma
    speedup = detectable_speedup(delta, slope) if slope > 0 else None
    return {"sigma": sigma, "slope": slope, "detectable_delta": delta, "detectable_speedup": speedup}


def _data(study: Study) -> dict[str, Any]:
    if study.task is not None:
        return dict(study.data)
    return {**study.data, "leak": "nothing crosses document boundaries: attention is masked there, in every arm"}


def _versions(study: Study, throughput: Mapping[str, Any]) -> dict[str, Any]:
    hardware = throughput.get("hardware", {})
    return {
        "windtunnel": windtunnel.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": study.device,
        "hardware": hardware.get("hardware", "unknown"),
        "dtype": study.dtype,
        "threads": study.execution.threads,
        "load": throughput.get("load"),
    }


def _optional(path: Path) -> dict[str, Any]:
    return read_json(path) if path.is_file() else {}
