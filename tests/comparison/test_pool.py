"""The local pool: outcomes for every job, whatever happens to it."""

import multiprocessing
import os
import signal
import time
from pathlib import Path

from windtunnel.comparison.pool import Job, LocalPool


def double(payload, report):
    report(payload["value"])
    return {"value": 2 * payload["value"]}


def fail(payload, report):
    raise ValueError(f"no {payload['value']}")


def die_once(payload, report):
    marker = Path(payload["marker"])
    if not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return {"value": "lived"}


def die(payload, report):
    os.kill(os.getpid(), signal.SIGKILL)


def job(name, function, **payload):
    return Job(name, f"{__name__}:{function.__name__}", payload, 1)


def outcomes(jobs, workers=2):
    ticks = []
    found = {outcome.job.name: outcome for outcome in LocalPool(workers).run(jobs, ticks.append)}
    return found, ticks


def test_results_errors_and_deaths_all_come_back(tmp_path):
    jobs = [job("good", double, value=3), job("bad", fail, value=4), job("once", die_once, marker=str(tmp_path / "m"))]
    found, ticks = outcomes(jobs)
    assert found["good"].result == {"value": 6}
    assert found["bad"].result is None
    assert found["bad"].error == "ValueError: no 4"
    assert "Traceback" in found["bad"].details
    assert found["once"].result == {"value": "lived"}
    assert ticks[-1] >= 3


def test_a_job_that_always_kills_its_worker_is_reported():
    found, _ = outcomes([job("dead", die)], workers=1)
    assert found["dead"].result is None
    assert "died" in found["dead"].error


def test_workers_end_with_their_parent(tmp_path):
    """A parent that is killed leaves no worker behind."""
    import subprocess
    import sys

    script = (
        "from tests.comparison.test_pool import *\n"
        "if __name__ == '__main__':\n"
        f"    list(LocalPool(1).run([job('long', sleep_long, file={str(tmp_path / 'pid')!r})], lambda n: None))\n"
    )
    path = tmp_path / "main.py"
    path.write_text(script)
    parent = subprocess.Popen([sys.executable, str(path)], env={**os.environ, "PYTHONPATH": os.getcwd()})
    pid = tmp_path / "pid"
    wait_for(lambda: pid.exists() and pid.read_text())
    worker = int(pid.read_text())
    parent.kill()
    parent.wait()
    wait_for(lambda: not alive(worker))


def test_a_caller_that_stops_gets_its_workers_back(tmp_path):
    jobs = [job(f"job {index}", sleep_long, file=str(tmp_path / str(index))) for index in range(4)]
    outcomes = LocalPool(2).run([job("good", double, value=1), *jobs], lambda tokens: None)
    assert next(outcomes).result == {"value": 2}
    outcomes.close()
    assert not multiprocessing.active_children()


def sleep_long(payload, report):
    Path(payload["file"]).write_text(str(os.getpid()))
    time.sleep(600)


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except OSError:
        return False


def wait_for(condition, seconds=60.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)
