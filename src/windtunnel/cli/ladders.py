"""A ladder from the command line: planned, announced, carried out, fitted."""

from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from windtunnel.cli.progress import stage_progress
from windtunnel.cli.screen import Screen
from windtunnel.cli.studies import interruptible
from windtunnel.cli.study_progress import work_progress
from windtunnel.comparison.cluster import RayPool
from windtunnel.comparison.engine import local_pool
from windtunnel.comparison.ladders.bill import Bill, announcement, estimate
from windtunnel.comparison.ladders.engine import run_folder, run_ladder
from windtunnel.comparison.ladders.ladder import Ladder, Rung
from windtunnel.comparison.ladders.report import fitted, write_report
from windtunnel.comparison.ladders.request import LadderRequest, plan_ladder
from windtunnel.comparison.ladders.results import assemble
from windtunnel.comparison.pool import Pool
from windtunnel.comparison.scaling.page import tables
from windtunnel.report import Table, figures

_PHASES = ("sweeps", "check", "runs", "seeds")


def carry_out(request: LadderRequest, as_json: bool) -> None:
    """Plan, announce, run, fit."""
    screen = Screen(as_json)
    with stage_progress("data") as prepared:
        ladder = plan_ladder(request, prepared)
    with closing(_pool(ladder, request)) as pool:
        bill = _announce(screen, ladder, pool.workers)
        with interruptible(request.out), work_progress(_later(ladder, bill, request.out)) as progress:
            results = run_ladder(ladder, request.out, progress=progress, pool=pool, bill=bill)
    _show(screen, results, request.out)


def report_again(folder: Path, out: Path | None, packages: tuple[str, ...], as_json: bool) -> None:
    """Results, fits and page from a ladder's files; nothing is trained."""
    _show(Screen(as_json), assemble(folder, packages), folder, out)


def _show(screen: Screen, results: dict[str, Any], folder: Path, out: Path | None = None) -> None:
    """Fit, write the page, print tables or everything as JSON."""
    document = fitted(results, folder, screen.say)
    page = write_report(results, document, out or folder / "report.html")
    screen.finish({**results, "fits": document, "report": str(page)})
    if not screen.as_json:
        for table in tables(document):
            screen.say(table.caption, style="bold")
            screen.say(table.rich(padding=(0, 1)))
        screen.say(f"report: {page}", whole=True)


def show_plan(request: LadderRequest, as_json: bool) -> None:
    """Sizes, budgets and the bill; nothing is trained."""
    screen = Screen(as_json)
    with stage_progress("data") as prepared:
        ladder = plan_ladder(request, prepared)
    with closing(_pool(ladder, request)) as pool:
        bill = _announce(screen, ladder, pool.workers)
    rungs = [_rung(ladder, bill, rung) for rung in ladder.all_rungs()]
    screen.finish(
        {"ladder": ladder.id, "bill": bill.to_json(), "rungs": rungs}, _plan_table(rungs).rich(padding=(0, 1))
    )


def _announce(screen: Screen, ladder: Ladder, workers: int) -> Bill:
    bill = estimate(ladder, workers)
    for line in announcement(ladder, bill):
        screen.say(line)
    return bill


def _pool(ladder: Ladder, request: LadderRequest) -> Pool[Any]:
    device = ladder.sizes[0].device
    if request.cluster is None:
        return local_pool(device, request.workers, request.device)
    return RayPool(request.cluster, request.workers, device)


def _later(ladder: Ladder, bill: Bill, folder: Path) -> dict[str, float]:
    """What follows each phase and is not done yet, in the milliseconds of one worker that jobs weigh."""
    seconds = [bill.seconds[phase] - _done(ladder, bill, folder, phase) for phase in _PHASES]
    return {phase: 1e3 * sum(seconds[k + 1 :]) for k, phase in enumerate(_PHASES)}


def _done(ladder: Ladder, bill: Bill, folder: Path, phase: str) -> float:
    """Seconds that a phase's finished runs were to take; trials are counted while they are tried."""
    seeds = {"runs": [1], "seeds": range(2, ladder.design.seeds + 1)}.get(phase, ())
    return sum(
        ladder.tokens(rung) * bill.a_token[rung.arm, rung.size]
        for rung in ladder.all_rungs()
        for seed in seeds
        if (run_folder(folder, rung, seed) / "result.json").is_file()
    )


def _rung(ladder: Ladder, bill: Bill, rung: Rung) -> dict[str, Any]:
    counted, spec = ladder.costs(rung).parameters, ladder.arm(rung).spec
    return {
        "arm": rung.arm,
        "budget": ladder.design.budgets[rung.budget],
        "layers": len(spec.layers),
        "width": spec.width,
        "n_body": counted.n_body,
        "n_active": counted.n_active,
        "tokens": ladder.tokens(rung),
        "flops": ladder.flops(rung),
        "seconds": ladder.tokens(rung) * bill.a_token[rung.arm, rung.size],
    }


def _plan_table(rungs: Sequence[Mapping[str, Any]]) -> Table:
    columns = ("FLOPs", "arm", "layers x width", "body", "with head", "tokens", "seconds")
    rows = [
        (
            f"{one['budget']:.3g}",
            one["arm"],
            f"{one['layers']} x {one['width']}",
            figures.counted(one["n_body"]),
            figures.counted(one["n_active"]),
            figures.counted(one["tokens"]),
            f"{one['seconds']:,.0f}",
        )
        for one in rungs
    ]
    return Table(caption="Rungs", columns=columns, rows=rows, numeric=range(3, 7))
