"""Running self-tests one after another; what was decided is kept, so that interrupted work goes on."""

import platform
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from windtunnel.checkpoint import read_json, write_json
from windtunnel.errors import InputError
from windtunnel.execution import Execution, hardware_name
from windtunnel.report import Table
from windtunnel.selftest.check import Check, Lab, Outcome, Say
from windtunnel.spec import nearest
from windtunnel.version import VERSION

FILE = "selftest.json"


def chosen(checks: Sequence[Check], names: Sequence[str], everything: bool) -> list[Check]:
    """The named checks, or all that are quick, or all; a name that is not there is refused."""
    known = {check.name: check for check in checks}
    for name in names:
        if name not in known:
            raise InputError(f"selftest: unknown check {name!r}{nearest(name, known)}")
    if names:
        return [known[name] for name in dict.fromkeys(names)]
    return [check for check in checks if everything or not check.long]


def run(checks: Sequence[Check], folder: Path, say: Say) -> dict[str, Any]:
    """Carry out checks in a folder and return the figures, which are kept there too.

    A check that an earlier command of the same version decided there is not run again. One that breaks has failed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    document = _opened(folder / FILE)
    for check in checks:
        if check.name in document["checks"]:
            say(f"{check.name}: decided before")
            continue
        say(f"{check.name}: {check.title}")
        began = time.perf_counter()
        outcome = _carried_out(check, Lab(folder / check.name, say))
        document["checks"][check.name] = {
            "number": check.number,
            "title": check.title,
            "passed": outcome.passed,
            "shown": outcome.shown,
            "figures": outcome.figures,
            "seconds": time.perf_counter() - began,
        }
        write_json(folder / FILE, document)
    found = {check.name: document["checks"][check.name] for check in checks}
    return {**document, "passed": all(each["passed"] for each in found.values()), "checks": found}


def table(document: dict[str, Any]) -> Table:
    """A row for each check."""
    rows = [list(_cells(name, each)) for name, each in document["checks"].items()]
    return Table(
        caption="Self-tests", columns=("test", "what has to hold", "", "figures", "s"), rows=rows, numeric=(4,)
    )


def _cells(name: str, each: dict[str, Any]) -> Iterator[str]:
    yield f"{each['number']} {name}"
    yield each["title"]
    yield "pass" if each["passed"] else "FAIL"
    yield each["shown"]
    yield f"{each['seconds']:.1f}"


def _carried_out(check: Check, lab: Lab) -> Outcome:
    lab.folder.mkdir(parents=True, exist_ok=True)
    try:
        return check.run(lab)
    except Exception as error:  # whatever broke, the other checks can still be made
        return Outcome(False, f"broke: {type(error).__name__}: {error}")


def _opened(path: Path) -> dict[str, Any]:
    """What was decided before by the same version on the same machine, or an empty document."""
    about = {
        "selftest": VERSION,
        "hardware": hardware_name(Execution(device="cpu").resolve().device),
        "versions": {"torch": torch.__version__, "python": platform.python_version()},
    }
    if path.is_file():
        known = read_json(path)
        if {name: known.get(name) for name in about} == about:
            return known
    return {**about, "created": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "checks": {}}
