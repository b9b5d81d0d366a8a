"""Self-tests by real studies: a report of the same bytes, and the controls."""

import hashlib
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from windtunnel.comparison.engine import run_study
from windtunnel.comparison.request import StudyRequest, plan_study
from windtunnel.comparison.verdict import EQUIVALENT, INCONCLUSIVE, LOSES
from windtunnel.errors import WorkError
from windtunnel.selftest.check import Lab, Outcome
from windtunnel.selftest.small import small_study

MORE = 1.25
ARMS = ("llama", "same=llama:seed_offset=100", "hot=llama:lr_factor=4", f"more=llama:token_factor={MORE}")
_FILES = ("results.json", "report.html")
_MOST_WORDS = 500  # letters of what a process said before it failed


def report_bytes(study: Path, order: str) -> dict[str, str]:
    """SHA-256 of the results and the page of a study, made again by a process that hashes strings in another order."""
    command = [sys.executable, "-m", "windtunnel", "report", str(study), "--json"]
    done = subprocess.run(
        command, env={**os.environ, "PYTHONHASHSEED": order}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise WorkError(f"{study}: no report: {done.stderr.strip()[-_MOST_WORDS:]}")
    return {name: hashlib.sha256((study / name).read_bytes()).hexdigest() for name in _FILES}


def report(lab: Lab) -> Outcome:
    """A study of two arms; its files give the same report twice, and both arms read the same order of data."""
    results = small_study(lab.folder, "llama", "palm", seeds=2, trials=1)
    first, again = (report_bytes(lab.folder / "study", order) for order in ("1", "2"))
    hashes = {label: arm["batch_hash"] for label, arm in results["arms"].items()}
    passed = first == again and len(set(hashes.values())) == 1
    shown = f"{' and '.join(_FILES)} made twice: {'the same bytes' if first == again else 'DIFFERENT bytes'}"
    return Outcome(passed, shown, {"first": first, "again": again, "batch_hashes": hashes})


def controls(lab: Lab) -> Outcome:
    """A/A, positive and negative control as one study of five seeds on the default corpus."""
    out = lab.folder / "study"
    study = plan_study(StudyRequest(arms=ARMS, out=out, preset="quick"))
    return judge_controls(
        run_study(study, out, lambda at: lab.say(f"{at.phase}: {at.tokens:,} of {at.total:,} tokens"))
    )


def judge_controls(results: Mapping[str, Any]) -> Outcome:
    """What the three control arms have to come out as."""
    found = {one["variant"]: one for one in results["comparisons"]}
    same, hot, more = (found[name] for name in ("same", "hot", "more"))
    low, high = more["s_tok"]["ci95"]
    passed = (
        same["verdict"] in (INCONCLUSIVE, EQUIVALENT)
        and hot["verdict"] == LOSES
        and None not in (low, high)
        and 1 < low <= MORE <= high
    )
    shown = "; ".join(f"{name} {one['verdict']}, S_tok {one['s_tok']['text']}" for name, one in found.items())
    figures = {name: {"verdict": one["verdict"], "s_tok": one["s_tok"]} for name, one in found.items()}
    return Outcome(passed, shown, figures)
