"""What the probes found: the shares of the noise, and the difference between arms at other batches."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from windtunnel.checkpoint import read_json
from windtunnel.comparison.arms import Arm
from windtunnel.comparison.probes import PROBES, Probe, probe_folder
from windtunnel.comparison.study import Study
from windtunnel.statistics import deviation_interval, paired_interval

Losses = Mapping[int, float]  # by seed


def probe_results(study: Study, folder: Path, losses: Mapping[str, Losses]) -> dict[str, Any]:
    """Of every probe whose runs have finished. folder: of the study; losses: of its own runs at D, by arm and seed."""
    found: dict[str, Any] = {}
    if "noise" in study.probes:
        found["noise"] = _noise(study, folder, losses[study.baseline])
    if "batch" in study.probes:
        found["batch"] = [
            {"batch_size": study.design.batch_size, **row} for row in _differences(study, losses)
        ] + _batches(study, folder)
    return found


def probe_caveats(study: Study, results: Mapping[str, Any]) -> list[str]:
    """Arms whose difference has another sign at another batch, both intervals clear of zero."""
    rows = results.get("probes", {}).get("batch", [])
    own = {row["variant"]: row for row in rows if row["batch_size"] == study.design.batch_size}
    return [
        f"{row['variant']}: at a batch of {row['batch_size']} the difference from {study.baseline} has the other sign."
        for row in rows
        if _sign(row) * _sign(own[row["variant"]]) < 0
    ]


def _sign(row: Mapping[str, Any]) -> int:
    """Of a difference whose interval leaves zero out; 0 for any other."""
    low, high = row["ci95"]
    return int(low > 0) - int(high < 0)


def _noise(study: Study, folder: Path, own: Losses) -> dict[str, Any]:
    baseline = study.arm(study.baseline)
    probed = {probe.name: _read(study, folder, baseline, probe) for probe in PROBES["noise"]}
    return {name: _spread(list(one.values())) for name, one in {"both": own, **probed}.items() if len(one) > 1}


def _spread(losses: list[float]) -> dict[str, Any]:
    found = deviation_interval(losses)
    return {"deviation": found.value, "ci95": found.ends, "n": len(losses)}


def _batches(study: Study, folder: Path) -> list[dict[str, Any]]:
    rows = []
    for probe in PROBES["batch"]:
        probed = {arm.label: _read(study, folder, arm, probe) for arm in study.arms if probe in study.probes_of(arm)}
        size = probe.change(study.run_settings(study.arm(study.baseline), 1.0, 1), 1).batch_size
        rows += [{"batch_size": size, **row} for row in _differences(study, probed)]
    return rows


def _differences(study: Study, losses: Mapping[str, Losses]) -> list[dict[str, Any]]:
    """Each probed variant against the baseline over the seeds that both have."""
    rows = []
    for arm in study.variants:
        if study.probes_of(arm):
            own, base = losses[arm.label], losses[study.baseline]
            seeds = sorted(set(own) & set(base))
            if len(seeds) > 1:
                change = paired_interval([own[seed] for seed in seeds], [base[seed] for seed in seeds])
                row = {"variant": arm.label, "delta_nats": change.value, "ci95": change.ends, "n": len(seeds)}
                rows.append(row)
    return rows


def _read(study: Study, folder: Path, arm: Arm, probe: Probe) -> Losses:
    """Losses at D of the probe's finished runs."""
    paths = {seed: folder / "runs" / arm.label / probe_folder(probe, seed) / "result.json" for seed in study.seeds(arm)}
    return {seed: float(read_json(path)["horizons"]["1.0"]["loss"]) for seed, path in paths.items() if path.is_file()}
