"""Pools: outcomes for every job, whatever happens to it; what all kinds share, and processes of this machine."""

import multiprocessing
import os
import re
import signal
import time
from pathlib import Path

import pytest

from windtunnel.comparison.pool import Job, LocalPool, Pool, WorkerLost, work
from windtunnel.training.interruption import Interrupted


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
    assert re.fullmatch(r"worker died 3 times: process \d+ killed by SIGKILL, .*", found["dead"].error)


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
    paths = os.pathsep.join([os.getcwd(), os.environ.get("PYTHONPATH", "")])
    parent = subprocess.Popen([sys.executable, str(path)], env={**os.environ, "PYTHONPATH": paths})
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


def test_a_worker_that_dies_leaves_those_beside_it_alone(tmp_path):
    jobs = [
        job("patient", wait_for_the_other, begun=str(tmp_path / "begun"), other=str(tmp_path / "m2")),
        job("once", die_beside, other=str(tmp_path / "begun"), marker=str(tmp_path / "m"), done=str(tmp_path / "m2")),
    ]
    found, ticks = outcomes(jobs)
    assert found["patient"].result == {"attempts": 1}
    assert found["once"].result == {"value": "lived"}
    assert ticks[-1] == 5  # what the dead worker had trained is not counted twice


def wait_for_the_other(payload, report):
    with Path(payload["begun"]).open("a") as file:
        file.write("x")
    wait_for(Path(payload["other"]).exists)
    return {"attempts": len(Path(payload["begun"]).read_text())}


def die_beside(payload, report):
    wait_for(Path(payload["other"]).exists)
    report(5)
    answer = die_once(payload, report)
    Path(payload["done"]).touch()
    return answer


class Scripted(Pool[str]):
    """A pool without workers: each attempt at a job takes the next line of its script."""

    def __init__(self, room, **scripts):
        self.workers, self.scripts, self.log = room, scripts, []

    def begin(self):
        self.log.append("begin")

    def end(self):
        self.log.append("end")

    def room(self):
        return self.workers

    def submit(self, job):
        self.log.append(f"submit {job.name}")
        return job.name

    def finished(self, tickets, seconds):
        assert 0 < len(tickets) <= self.workers
        return [ticket for ticket in tickets if self.scripts[ticket]][:1]

    def answer(self, ticket):
        line = self.scripts[ticket].pop(0)
        if isinstance(line, Exception):
            raise line
        return line

    def tokens(self):
        return 7

    def stop(self, tickets):
        self.log.append(f"stop {' '.join(sorted(tickets))}")


def scripted(weights):
    return [Job(name, "a:b", {}, weight) for name, weight in weights.items()]


def test_heavy_jobs_come_first_and_never_more_than_there_is_room_for():
    one = Scripted(2, a=[{"result": {}}], b=[{"result": {}}], c=[{"result": {}}])
    ticks = []
    names = [outcome.job.name for outcome in one.run(scripted({"a": 1, "b": 3, "c": 2}), ticks.append)]
    assert one.log == ["begin", "submit b", "submit c", "submit a", "end"]
    assert names == ["b", "c", "a"]
    assert ticks == [7, 7, 7]


def test_a_lost_worker_costs_an_attempt_of_its_own_job_alone():
    lost = WorkerLost("host, process 9: its machine was lost")
    one = Scripted(2, a=[lost, {"lost": "stopped by SIGTERM"}, {"result": {"x": 1}}], b=[lost, lost, lost])
    found = {outcome.job.name: outcome for outcome in one.run(scripted({"a": 1, "b": 1}), lambda tokens: None)}
    assert found["a"].result == {"x": 1}
    assert found["b"].result is None
    assert found["b"].error == "worker died 3 times: host, process 9: its machine was lost"
    assert one.log.count("submit a") == one.log.count("submit b") == 3


def test_whoever_stops_asking_stops_what_is_under_way():
    one = Scripted(3, a=[{"result": {}}], b=[], c=[])
    outcomes = one.run(scripted({"a": 3, "b": 2, "c": 1}), lambda tokens: None)
    assert next(outcomes).job.name == "a"
    outcomes.close()
    assert one.log[-1] == "stop b c"


def test_a_pool_that_cannot_go_on_stops_its_workers():
    one = Scripted(2, a=[KeyError("no such node")], b=[])
    with pytest.raises(KeyError, match="no such node"):
        list(one.run(scripted({"a": 2, "b": 1}), lambda tokens: None))
    assert one.log[-1] == "stop b"


def stopped(payload, report):
    raise Interrupted(Path("run"), 5, signal.SIGTERM)


def test_a_run_that_is_stopped_from_outside_is_lost_and_no_failure():
    assert "SIGTERM at step 5" in work(f"{__name__}:stopped", {}, lambda tokens: None)["lost"]


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
