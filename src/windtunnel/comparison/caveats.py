"""What was held equal, with the evidence, and what a reader must not conclude."""

import hashlib
from collections.abc import Mapping
from typing import Any

from windtunnel.comparison.arm_results import ArmRuns
from windtunnel.comparison.arms import Arm
from windtunnel.comparison.looks import SHARES
from windtunnel.comparison.probe_results import probe_caveats
from windtunnel.comparison.study import Study
from windtunnel.comparison.tried import tried_words
from windtunnel.data.shards import Dataset
from windtunnel.mixers import Convolved
from windtunnel.model import Block
from windtunnel.statistics import paired_interval
from windtunnel.training.settings import TrainingSettings
from windtunnel.training.workload import Text

_HELPED = "A mixer with a convolution is helped by it"


def held_equal(study: Study, runs: Mapping[str, ArmRuns]) -> list[dict[str, str]]:
    """Rows of what every arm shares: the rule, and a hash or figure that proves it."""
    design = study.design
    decay = TrainingSettings.weight_decay
    rows = [
        *_what(study),
        ("training tokens and their order", *_order(study, runs)),
        *_mixture(study),
        (
            "batch",
            f"{design.batch_size} sequences of {design.context} tokens a step",
            f"{design.context} x {design.batch_size}",
        ),
        *_heldout(study, runs),
        (
            "optimiser",
            "AdamW, betas (0.9, 0.95), clipped at 1.0, decay on matrices and tables only" + _but(study),
            f"decay {decay:g}",
        ),
        (
            "schedule",
            f"warm-up {design.warmup:g}, constant, linear cooldown over {design.cooldown:g}" + _but(study),
            "wsd",
        ),
        (
            "tuning",
            f"{design.trials} learning rates an arm, the same rule at the edge",
            f"seed 0, {design.tuning_fraction:g} D",
        ),
        ("numeric policy", "float32 weights and optimiser state in every arm", f"{study.dtype} on {study.device}"),
        _matched(study),
        *_strength(study, runs),
        *_looks(study),
    ]
    return [{"what": what, "rule": rule, "evidence": evidence} for what, rule, evidence in rows]


def _what(study: Study) -> list[tuple[str, str, str]]:
    if study.task is not None:
        return [
            ("task", "identical, an endless stream of items; held-out ones told apart by their content", _named(study))
        ]
    return [
        ("tokenizer", "identical", str(study.data["tokenizer_fingerprint"])),
        ("corpus", "identical, held-out documents chosen by hash", str(study.data["fingerprint"])),
    ]


def _named(study: Study) -> str:
    return f"{study.data['name']}, {study.data['fingerprint'][:16]}"


def _heldout(study: Study, runs: Mapping[str, ArmRuns]) -> list[tuple[str, str, str]]:
    workload = study.workload
    if not isinstance(workload, Text):
        return [
            ("held-out items", "the same for every run, drawn with seed 0", f"{study.data['heldout_items']:,} items")
        ]
    windows = f"disjoint windows of {study.design.context}, the same documents"
    return [
        ("document boundaries", "nothing crosses them in any arm", "positions are masked; state would be reset"),
        ("held-out text", windows, _heldout_hash(runs, workload.dataset)),
    ]


def _matched(study: Study) -> tuple[str, str, str]:
    if study.data.get("state") is not None:
        return "state", f"widths turned until decoding one item carries {study.data['state']:,} bytes", _gaps(study)
    return "parameters", "active body parameters matched to the baseline", _gaps(study)


def task_caveats(study: Study, results: Mapping[str, Any]) -> list[str]:
    """What a reader must not conclude from a synthetic task."""
    found = [
        "A synthetic task tells what an architecture can learn to do, at one size and one setting; not how often text "
        "asks for it.",
        "Accuracy is at the learning rate that the sweep chose; the best of the sweep, beside it, is optimistic.",
        "Length generalisation depends on the length and the duration of training: sweep both before it is reported.",
        _convolution(study),
        f"Learning is looked at every {max(1, _steps(results) // 40)} steps, so steps to solve are known that finely.",
        "FLOPs count the head at every token; a CPU computes it where there are answers alone.",
    ]
    return found + tried_words(results["tried"]) + _about_arms(study, results)


def _convolution(study: Study) -> str:
    """Who tells what a convolution alone is worth."""
    controls = [arm.label for arm in study.arms if any(isinstance(block.mixer, Convolved) for block in _blocks(arm))]
    if not controls:
        return f"{_HELPED}: an arm such as `llama-conv=llama:convolution=4`, Llama with one, would tell how much."
    return f"{_HELPED}: what exceeds {', '.join(controls)}, not {study.baseline} alone, is owed to something else."


def _blocks(arm: Arm) -> list[Block]:
    return [layer for layer in arm.spec.layers if isinstance(layer, Block)]


def _steps(results: Mapping[str, Any]) -> int:
    return max(int(arm["task"]["steps"]) for arm in results["arms"].values())


def caveats(study: Study, results: Mapping[str, Any]) -> list[str]:
    """Sentences that belong beside the verdicts."""
    design = study.design
    baseline = results["arms"][study.baseline]
    found = [
        f"One size ({baseline['n_body']:,} body parameters) and one corpus: gains here often fade at larger sizes.",
        f"Losses are at a context of {design.context} tokens; nothing here tells about longer ones.",
        "Time is that of this machine and these kernels; FLOPs are counted by the ledger, not by a profiler.",
    ]
    ratio = design.tokens / baseline["n_body"]
    if ratio < 20:
        found.append(f"Trained on {ratio:.1f} tokens a body parameter; less than 20 favours what learns fast early.")
    if design.tuning_fraction < 1 and not design.bracket:
        found.append(
            f"Learning rates were tuned at {design.tuning_fraction:g} of the budget and not checked at the full one."
        )
    if study.data["epochs"] > 1:
        found.append(f"The longest runs read the corpus {study.data['epochs']:.1f} times.")
        found += _memory(study, results)
    overlap = study.data.get("overlap_13gram")
    if overlap is not None:
        found.append(f"{100 * float(overlap):.1f} % of the held-out 13-grams also occur in the training text.")
    found += probe_caveats(study, results)
    return found + tried_words(results["tried"]) + _about_arms(study, results)


def _memory(study: Study, results: Mapping[str, Any]) -> list[str]:
    """Arms whose gap to their training text differs from the baseline's: they learned another share of it by heart."""
    gaps = {label: arm.get("training_gap", {}).get("seeds", []) for label, arm in results["arms"].items()}
    found, base = [], gaps[study.baseline]
    for arm in study.variants:
        own = gaps.get(arm.label, [])
        if arm.control or len(own) != len(base) or len(base) < 2:
            continue
        change = paired_interval(own, base)
        if 0 not in change:
            where = "farther from" if change.value > 0 else "nearer to"
            low, high = sorted((abs(change.low), abs(change.high)))
            found.append(
                f"{arm.label}: its held-out loss is {where} its training loss than {study.baseline}'s, by "
                f"{abs(change.value):.4f} nats [{low:.4f}, {high:.4f}]; on more text the two may compare otherwise."
            )
    return found


def _about_arms(study: Study, results: Mapping[str, Any]) -> list[str]:
    found = []
    tables = {label: arm["params"]["n_emb"] + arm["params"]["n_unemb"] for label, arm in results["arms"].items()}
    if len(set(tables.values())) > 1:
        listed = ", ".join(f"{label} {count:,}" for label, count in tables.items())
        found.append(f"Embedding and unembedding tables are not matched (tied or not is part of a recipe): {listed}.")
    for arm in study.variants:
        entry = results["arms"].get(arm.label)
        if entry is None:
            found.append(f"{arm.label} has no finished run and is left out.")
            continue
        if arm.published:
            found.append(f"{arm.label} trains as its paper did; its difference from {study.baseline} is that too.")
        elif entry["own_settings"] and not arm.control:
            found.append(
                f"{arm.label} keeps what its paper makes part of the idea: {', '.join(entry['own_settings'])}."
            )
        if entry["diverged"]:
            found.append(f"{arm.label}: {entry['diverged']} run(s) diverged and count with their initial loss.")
    return found


def _but(study: Study) -> str:
    """Which arms do not share the common training."""
    labels = [arm.label for arm in study.arms if arm.published]
    return f"; not in {', '.join(labels)}, which train as their papers did" if labels else ""


def _order(study: Study, runs: Mapping[str, ArmRuns]) -> tuple[str, str]:
    """One SHA-256 of the batches for each seed, the same in every arm that follows the study's rules."""
    hashes: dict[int, set[str]] = {}
    for arm in study.arms:
        if not arm.control and not arm.published.get("ramp"):
            for seed, result in zip(runs[arm.label].seeds, runs[arm.label].results, strict=True):
                hashes.setdefault(seed, set()).add(result["batch_hash"])
    if any(len(found) > 1 for found in hashes.values()):
        return "DIFFERENT between arms: the comparison is not fair", "; ".join(sorted(map(str, hashes.values())))
    first = " ".join(f"seed {seed}: {next(iter(found))[:16]}" for seed, found in sorted(hashes.items()))
    return "a pure function of (seed, step, row); the first and last 64 batches hashed", first


def _mixture(study: Study) -> list[tuple[str, str, str]]:
    shares = ", ".join(f"{share.set} {share.weight:.3g}" for share in study.mixture)
    return [("mixture", "the same set for each sequence of the order", shares)] if shares else []


def _heldout_hash(runs: Mapping[str, ArmRuns], dataset: Dataset) -> str:
    digest = hashlib.sha256()
    first = next(arm for arm in runs.values() if arm.seeds).documents[0]
    for index in first["documents"]:
        digest.update(dataset.heldout.names[int(index)].encode("utf-8", "surrogateescape"))
        digest.update(dataset.heldout.document(int(index)).tobytes())
    return f"{digest.hexdigest()[:16]} ({int(first['tokens'].sum()):,} tokens)"


def _strength(study: Study, runs: Mapping[str, ArmRuns]) -> list[tuple[str, str, str]]:
    """Where a reference loss was registered, what the baseline reached."""
    if study.reference is None:
        return []
    reached = sum(runs[study.baseline].losses[1.0]) / len(runs[study.baseline].seeds)
    rule = f"{study.baseline} has to reach the registered {study.reference:g} nats a token at D"
    return [("strength of the baseline", rule, f"{reached:.4f}")]


def _looks(study: Study) -> list[tuple[str, str, str]]:
    """Where more seeds may follow a look, at which one this is."""
    if study.looks == 1:
        return []
    shares = ", ".join(f"{share:g}" for share in SHARES[study.looks])
    rule = f"seeds are doubled while a verdict is open; shares of alpha: {shares}"
    return [("looks", rule, f"look {study.look}: {study.seeds_at_look} seeds, alpha {study.alpha:g}")]


def _gaps(study: Study) -> str:
    return ", ".join(f"{arm.label} {100 * arm.matching.gap:+.2f} %" for arm in study.variants)
