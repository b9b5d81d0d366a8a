"""A real Ray cluster of two nodes on this machine, and a study on it."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.comparison.test_study import figures
from windtunnel.comparison.engine import run_study
from windtunnel.comparison.request import StudyRequest, plan_study
from windtunnel.selftest.small import text

pytestmark = pytest.mark.slow
SECONDS = 420.0


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    path = tmp_path_factory.mktemp("corpus") / "my.txt"
    path.write_text(text())
    return path


@pytest.fixture(scope="module")
def nodes(corpus):
    """The head's address, and the raylet of the second node."""
    pytest.importorskip("ray", reason="the extra `cluster` is not installed")
    script = Path(__file__).with_name("two_nodes.py")
    process = subprocess.Popen([sys.executable, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        found = json.loads(process.stdout.readline())
        yield found["address"], found["second"]
    finally:
        process.stdin.close()
        process.stdout.close()
        process.wait(timeout=120)


def command(corpus, out, address):
    sizes = ["--preset", "smoke", "--tokens", "64k", "--seeds", "2", "--trials", "3", "--evaluation-tokens", "2k"]
    words = ["compare", "llama", "palm", *sizes, "--data", str(corpus), "--max-epochs", "100", "--cluster", address]
    return [sys.executable, "-m", "windtunnel", *words, "--out", str(out)]


def at_work(raylet, folder):
    """Whether a process of a node trains now: it is the raylet's child, and holds the lock of a run."""
    return any(
        name.startswith(str(folder)) and name.endswith("/lock")
        for child in Path(f"/proc/{raylet}/task/{raylet}/children").read_text().split()
        for name in open_files(child)
    )


def open_files(process):
    try:
        return [os.readlink(file) for file in Path(f"/proc/{process}/fd").iterdir()]
    except OSError:
        return []


def begin(corpus, out, address):
    environment = {**os.environ, "WINDTUNNEL_CACHE": str(corpus.parent / "cache")}
    return subprocess.Popen(
        command(corpus, out, address), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )


def wait_for(condition, process):
    end = time.monotonic() + SECONDS
    while not condition():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < end
        time.sleep(0.02)


def test_stopped_and_with_a_node_lost_a_cluster_gives_the_results_of_one_machine(corpus, nodes, tmp_path):
    address, second = nodes
    on_cluster, alone = tmp_path / "cluster", tmp_path / "alone"

    study = begin(corpus, on_cluster, address)
    wait_for(lambda: at_work(second, on_cluster), study)
    study.send_signal(signal.SIGINT)
    _, said = study.communicate(timeout=SECONDS)
    assert study.returncode != 0
    assert "stopped by SIGINT" in said
    assert not at_work(second, on_cluster)
    assert not (on_cluster / "results.json").exists()

    study = begin(corpus, on_cluster, address)
    wait_for(lambda: at_work(second, on_cluster), study)
    os.kill(second, signal.SIGKILL)
    _, said = study.communicate(timeout=SECONDS)
    assert study.returncode == 0, said
    assert not list(on_cluster.glob(".cluster-*"))

    sizes = {"tokens": 64_000, "seeds": 2, "trials": 3, "evaluation_tokens": 2_000, "max_epochs": 100.0}
    request = StudyRequest(
        arms=("llama", "palm"), out=alone, preset="smoke", data=(corpus,), cache=corpus.parent / "cache", **sizes
    )
    expected = run_study(plan_study(request), alone, workers=1)
    found = json.loads((on_cluster / "results.json").read_text())
    assert found["failures"] == expected["failures"] == []
    assert figures(found) == json.loads(json.dumps(figures(expected)))
    assert found["study"] == expected["study"]
