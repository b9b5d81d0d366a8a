"""The page of a ladder: its fits and frontiers, its rungs, and how its learning rates were found."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from windtunnel.comparison.scaling import fit_arms, read_sources
from windtunnel.comparison.scaling.marks import flops
from windtunnel.comparison.scaling.page import render
from windtunnel.comparison.scaling.pareto import Point, frontier
from windtunnel.report import Axis, Chart, Facts, Items, Section, Series, Table, colour, figures, marker, write_page

_SEED = 1


def fitted(results: Mapping[str, Any], folder: Path, say: Callable[[str], None] = lambda text: None) -> dict[str, Any]:
    """The fits of a ladder's runs, as `windtunnel fit FOLDER` makes them, and the frontier of decoding states."""
    source = read_sources([folder], str(results["baseline"]))
    document = fit_arms(source, say=say)
    points = [
        Point(
            name,
            float(arm["sizes"][size - 1]["state_bytes"]),
            float(np.mean(losses)),
            len(losses),
            document["arms"][name]["loss_of_size_and_tokens"]["deviation"],
            len(arm["runs"]) - 5,
            f"{figures.counted(arm['sizes'][size - 1]['params']['n_active'])} parameters",
        )
        for name, arm in results["arms"].items()
        for (_, size), losses in _by_rung(arm).items()
    ]
    document["frontiers"]["state_bytes"] = frontier(points, np.random.default_rng(_SEED), document["draws"])
    return document


def write_report(results: Mapping[str, Any], document: Mapping[str, Any], path: Path) -> Path:
    """Write the page."""
    return write_page(path, render(document, [_rungs(results), _rates(results), _caveats(results), _made(results)]))


def _by_rung(arm: Mapping[str, Any]) -> dict[tuple[int, int], list[float]]:
    """Losses of an arm's runs by budget and size, smallest first."""
    found: dict[tuple[int, int], list[float]] = {}
    for run in sorted(arm["runs"], key=lambda run: (run["budget"], run["size"], run["seed"])):
        found.setdefault((run["budget"], run["size"]), []).append(run["loss"])
    return found


def _rungs(results: Mapping[str, Any]) -> Section:
    budgets = results["settings"]["budgets"]
    rows = []
    for name, arm in results["arms"].items():
        first = {(run["budget"], run["size"]): run for run in arm["runs"] if run["seed"] == 1}
        for (budget, size), losses in _by_rung(arm).items():
            built, run = arm["sizes"][size - 1], first.get((budget, size))
            rows.append(
                (
                    name,
                    flops(budgets[budget - 1]),
                    f"{built['layers']} x {built['width']}",
                    figures.counted(built["n_body"]),
                    figures.counted(built["params"]["n_active"]),
                    figures.MISSING if run is None else figures.counted(run["tokens"]),
                    figures.MISSING if run is None else f"{run['lr']:.2g}",
                    figures.fixed(float(np.mean(losses)), 3),
                    str(len(losses)),
                )
            )
    columns = ("arm", "FLOPs", "layers x width", "body", "with head", "tokens", "rate", "loss", "seeds")
    table = Table(caption="Every rung", columns=columns, rows=rows, numeric=range(3, 9))
    lead = "Each rung is one size at one budget: runs of its own, whose learning rate has fully decayed."
    return Section(key="ladder", title="The ladder", short="Ladder", lead=lead, parts=[table])


def _rates(results: Mapping[str, Any]) -> Section:
    arms = {
        name: {
            "rate over the recipe's own, in the middle": figures.fixed(arm["rule"]["factor"], 2),
            "exponent of N": figures.signed(arm["rule"]["by_parameters"], 2),
            "exponent of D": figures.signed(arm["rule"]["by_tokens"], 2),
            "sweeps whose best is at the edge": str(sum(sweep["untuned"] for sweep in arm["sweeps"])),
            "check at the largest budget": _checked(arm["check"]),
        }
        for name, arm in results["arms"].items()
    }
    names = list(next(iter(arms.values())))
    rows = [(name, *(arm[name] for arm in arms.values())) for name in names]
    table = Table(caption="The rule of each arm", columns=("", *arms), rows=rows)
    return Section(
        key="rates",
        title="How learning rates were found",
        short="Rates",
        lead="Sweeps at four rungs give each arm a rule; at the largest budget it is tried against half and twice its "
        "rate. All of it with seed 0, which is never reported.",
        parts=[table, *(_trials(name, arm, k) for k, (name, arm) in enumerate(results["arms"].items()))],
    )


def _checked(check: Mapping[str, Any] | None) -> str:
    if check is None:
        return "failed"
    moves = f"after {check['moved']} move{'s' * (check['moved'] != 1)}" if check["moved"] else "at once"
    return f"agreed {moves}, {check['missed_octaves']:+.1f} octaves" if check["agreed"] else "never agreed: untuned"


def _trials(name: str, arm: Mapping[str, Any], k: int) -> Chart:
    """Excess loss of every trial over its sweep's best, by rate."""
    sweeps = [*arm["sweeps"], *([arm["check"]] if arm["check"] else [])]
    series = [_sweep(sweep, arm, index, index == len(arm["sweeps"])) for index, sweep in enumerate(sweeps)]
    return Chart(
        key=f"trials-{k}",
        title=f"{name}: trials",
        description=f"Excess loss by learning rate in {len(sweeps)} sweeps of {name}",
        x=Axis(title="learning rate (log scale)", log=True, form=figures.rate),
        y=Axis(title="loss over the sweep's best (nats)", form=figures.fixed),
        series=series,
    )


def _sweep(sweep: Mapping[str, Any], arm: Mapping[str, Any], index: int, check: bool) -> Series:
    best = min(trial["loss"] for trial in sweep["trials"])
    size = figures.counted(arm["sizes"][sweep["size"]]["params"]["n_active"])
    shown: Sequence[Mapping[str, Any]] = [trial for trial in sweep["trials"] if not trial["diverged"]]
    return Series(
        name=f"{'check' if check else 'sweep'}: budget {sweep['budget'] + 1}, {size}",
        x=[trial["lr"] for trial in shown],
        y=[trial["loss"] - best for trial in shown],
        colour=colour(index),
        marker=marker(index),
        line="dashed" if check else "solid",
        tips=[f"{trial['lr']:.2g}\n{figures.fixed(trial['loss'])} nats" for trial in shown],
    )


def _caveats(results: Mapping[str, Any]) -> Section:
    """What a reader must not conclude."""
    settings, arms = results["settings"], results["arms"]
    bodies = [figures.counted(size["n_body"]) for size in arms[results["baseline"]]["sizes"]]
    longest = max(run["tokens"] for arm in arms.values() for run in arm["runs"])
    sentences = [
        f"Bodies of {bodies[0]} to {bodies[-1]} parameters on one corpus: gains of small models often fade in larger "
        "ones, and no curve here is drawn beyond 4x the largest compute.",
        f"The longest run reads its text {longest / results['data']['train_tokens']:.2g} times.",
        f"Losses are at a context of {settings['context']} tokens; nothing here tells about longer ones.",
        f"Every run takes {settings['batch_size']} sequences a step; another batch may suit another arm better.",
        "Compute is counted by the ledger; how long an arm takes for it is for `windtunnel compare` to say.",
    ]
    variants = sorted({arm["recipe"] for arm in arms.values()} - {arms[results["baseline"]]["recipe"]})
    if variants:
        sentences.append(
            "An arm is compared whole, with all that it brings besides its idea. What each part is worth: "
            f"{', '.join(f'`windtunnel ablate {name}`' for name in variants)}."
        )
    return Section(key="caveats", title="Caveats", parts=[Items(items=sentences)])


def _made(results: Mapping[str, Any]) -> Section:
    settings, data, versions = (results[name] for name in ("settings", "data", "versions"))
    facts = [
        ("data", f"{data['name']}, {data['train_tokens']:,} training tokens, {data['tokenizer']}"),
        ("batch", f"{settings['batch_size']} sequences of {settings['context']} tokens, the same for all runs"),
        ("schedule", f"{settings['schedule']}, warm-up {settings['warmup']:g}, cooldown {settings['cooldown']:g}"),
        ("evaluated on", f"{settings['evaluation_tokens']:,} held-out tokens"),
        ("machine", f"{versions['hardware']}, {versions['device']}, {versions['dtype']}"),
        ("versions", f"windtunnel {versions['windtunnel']}, torch {versions['torch']}, Python {versions['python']}"),
        ("registered", f"{results['ladder']} on {results['created']}"),
        *(("failed", f"{one['arm']}, {one['job']}: {one['error']}") for one in results["failures"]),
    ]
    return Section(key="made", title="How it was made", short="Made", parts=[Facts(facts=facts)])
