"""From a ladder's files to `results.json`, which `fit` reads: nothing is trained."""

import platform
from pathlib import Path
from typing import Any

import torch

import windtunnel
from windtunnel.checkpoint import read_json, write_json
from windtunnel.comparison.given import paper_of
from windtunnel.comparison.ladders.ladder import NOUN, Ladder, Rung, load_ladder
from windtunnel.comparison.results import RESULTS
from windtunnel.errors import WorkError
from windtunnel.training.settings import TrainingSettings


def assemble(folder: Path, packages: tuple[str, ...] = ()) -> dict[str, Any]:
    """Recompute the results from a ladder's files and write them. Raises `WorkError` where no run is finished."""
    ladder, record = load_ladder(folder, packages)
    if not (folder / "tuning.json").is_file():
        raise WorkError(f"{folder}: the ladder was stopped before its tuning ended; run the same scale command again")
    tuning = read_json(folder / "tuning.json")
    failed = folder / "failures.json"
    failures = read_json(failed)["failures"] if failed.is_file() else tuning["failures"]
    arms = {}
    for arm in ladder.labels:
        runs = [row for rung in ladder.all_rungs() if rung.arm == arm for row in _rows(ladder, rung, folder)]
        if runs:
            arms[arm] = _arm(ladder, arm, tuning["arms"][arm], runs)
    if not arms:
        errors = {failure["error"] for failure in failures}
        raise WorkError(f"{folder}: no run is finished: {'; '.join(sorted(errors)) or 'stopped too early'}")
    results = {
        NOUN: ladder.id,
        "title": ladder.title,
        "created": record["created"],
        "preset": ladder.design.name,
        "baseline": ladder.baseline,
        "data": ladder.sizes[0].data,
        "settings": _settings(ladder),
        "versions": _versions(ladder),
        "arms": arms,
        "failures": failures,
    }
    write_json(folder / RESULTS, results)
    return results


def _rows(ladder: Ladder, rung: Rung, folder: Path) -> list[dict[str, Any]]:
    """The finished runs of a rung, one entry a seed."""
    found = []
    for path in sorted((folder / "runs" / rung.folder).glob("seed-*/result.json")):
        result = read_json(path)
        end = result["horizons"]["1.0"]
        settings = read_json(path.parent / "run.json")["identity"]["settings"]
        found.append(
            {
                "budget": rung.budget + 1,
                "size": rung.size + 1,
                "seed": settings["seed"],
                "tokens": end["tokens"],
                "flops": end["tokens"] * ladder.costs(rung).flops_per_token,
                "lr": settings["learning_rate"],
                "loss": end["loss"],
                "bits_per_byte": end.get("bits_per_byte"),
                "diverged": result["diverged"],
                "seconds": result["seconds"],
            }
        )
    return found


def _arm(ladder: Ladder, label: str, tuning: dict[str, Any], runs: list[dict[str, Any]]) -> dict[str, Any]:
    arm = ladder.sizes[0].arm(label)
    check = tuning["check"]
    edges = [sweep for sweep in tuning["sweeps"] if sweep["untuned"]]
    return {
        "label": label,
        "recipe": arm.recipe,
        "paper": paper_of(arm.recipe),
        "sizes": [_size(ladder, Rung(label, 0, size)) for size in range(len(ladder.sizes))],
        "rule": tuning["rule"],
        "sweeps": tuning["sweeps"],
        "check": check,
        "untuned": bool(edges) or check is None or not check["agreed"],
        "runs": runs,
        "diverged": sum(row["diverged"] for row in runs),
    }


def _size(ladder: Ladder, rung: Rung) -> dict[str, Any]:
    arm, counted = ladder.arm(rung), ladder.costs(rung)
    return {
        "layers": len(arm.spec.layers),
        "width": arm.spec.width,
        "params": counted.parameters._asdict(),
        "n_body": counted.parameters.n_body,
        "param_gap": arm.matching.gap,
        "flops_per_token": counted.flops_per_token,
        "state_bytes": counted.state_bytes[ladder.design.context],
        "fingerprint": arm.spec.fingerprint(),
    }


def _settings(ladder: Ladder) -> dict[str, Any]:
    design = ladder.design
    return {
        "budgets": list(design.budgets),
        "context": design.context,
        "batch_size": design.batch_size,
        "evaluation_tokens": design.evaluation_tokens,
        "seeds": design.seeds,
        "trials": design.trials,
        "tokens_per_parameter": design.tokens_per_parameter,
        "optimiser": TrainingSettings.optimiser,
        "schedule": TrainingSettings.schedule,
        "warmup": design.warmup,
        "cooldown": design.cooldown,
    }


def _versions(ladder: Ladder) -> dict[str, Any]:
    first = ladder.sizes[0]
    return {
        "windtunnel": windtunnel.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": first.device,
        "hardware": first.execution.resolve().to_json()["hardware"],
        "dtype": first.dtype,
        "threads": first.execution.threads,
    }
