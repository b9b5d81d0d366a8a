"""`windtunnel serve`: from a run's folder to an answer, and an end in good order."""

import argparse
import json
import shutil
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from tests.cli.conftest import Answer

Command = Callable[..., Answer]
SMALL = ("--set", "layers=1", "--set", "width=16", "--set", "heads=2", "--context", "64", "--threads", "1")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from windtunnel.cli.app import app

    folder = tmp_path_factory.mktemp("runs")
    source = ("--data", argparse.__file__, "--vocab", "bytes", "--tokens", 512, "--batch", 4)
    words = ("train", "llama", *source, "--evaluation-tokens", 640, *SMALL, "--out", folder / "run", "--json")
    result = CliRunner().invoke(app, [str(word) for word in words], env={"WINDTUNNEL_CACHE": str(folder / "cache")})
    assert result.exit_code == 0, result.stderr
    return folder / "run"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_what_runs_end(trained: Path, program: Any, number: signal.Signals) -> None:
    process = program(
        "serve", trained, f"other={trained}", "--port", 0, "--draft", "lookup", "--at-limit", "slide", "--json"
    )
    try:
        said = ""
        while not said.rstrip().endswith("}"):
            line = process.stdout.readline()
            assert line, process.stderr.read()
            said += line
        record = json.loads(said)
        assert record["models"] == ["run", "other"]
        body = {"model": "other", "prompt": "import ", "max_tokens": 600, "seed": 1, "logprobs": 0, "stream": True}
        with httpx.stream("POST", f"{record['url']}/v1/completions", json=body, timeout=60) as response:
            lines = response.iter_lines()
            assert json.loads(next(lines).removeprefix("data: "))["choices"][0]["index"] == 0
            process.send_signal(number)
            events = [line for line in lines if line]
        assert events[-1] == "data: [DONE]"
        assert json.loads(events[-2].removeprefix("data: "))["choices"][0]["finish_reason"] in ("length", "stop")
        assert process.wait(30) == 0
        assert process.stderr.read() == ""
    finally:
        process.kill()
        process.communicate()


@pytest.mark.slow
def test_what_takes_longer_than_the_grace_is_cut_off(trained: Path, program: Any) -> None:
    """Both are told, a stream and a request that waits for its whole answer."""
    options = ("--at-limit", "slide", "--max-tokens", 1_000_000, "--grace", 1)
    process = program("serve", trained, "--port", 0, *options, "--json")
    try:
        url = json.loads("".join(iter(process.stdout.readline, "}\n")) + "}")["url"]
        body = {"model": "run", "prompt": "x", "max_tokens": 1_000_000, "temperature": 0}
        with ThreadPoolExecutor(1) as beside:
            whole = beside.submit(httpx.post, f"{url}/v1/completions", json=body, timeout=60)
            with httpx.stream("POST", f"{url}/v1/completions", json={**body, "stream": True}, timeout=60) as response:
                lines = response.iter_lines()
                next(lines)
                while b'windtunnel_running{model="run"} 2' not in httpx.get(f"{url}/metrics").content:
                    time.sleep(0.02)
                process.send_signal(signal.SIGTERM)
                events = [line for line in lines if line]
            assert json.loads(events[-1].removeprefix("data: "))["error"]["code"] == "stopping"
            assert (whole.result().status_code, whole.result().json()["error"]["code"]) == (503, "stopping")
        assert process.wait(30) == 0
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{url}/health")
        assert "Traceback" not in process.stderr.read()
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("run", "run"), "'run' is served already"),
        (("none",), "not a run folder"),
        (("run", "--port", 70_000), "--port: expected 0 to 65535"),
        (("run", "--host", "203.0.113.1", "--port", 0), "--host 203.0.113.1"),
        (("run", "--at-limit", "wait"), "expected stop or slide"),
        (("run", "--slots", 0), "slots must be at least 1"),
        (("run", "--timeout", 0), "seconds must be positive"),
        (("run", "--api-key-file", "none"), "cannot be read"),
        (("run", "--api-key-file", "empty"), "holds no key"),
        (("run", "--draft", "none"), "not a run folder"),
        (("a/b=run",), "neither a run's folder nor NAME=FOLDER"),
        (("damaged",), "damaged: its size or hash"),
        (("run", "--draft", "damaged"), "damaged: its size or hash"),
        (("run", "unfinished"), "no whole checkpoint yet"),
    ],
    ids=str,
)
def test_what_cannot_be_served(command: Command, trained: Path, arguments: tuple[Any, ...], words: str) -> None:
    Path("empty").write_text("# no key\n\n")
    Path("run").symlink_to(trained)
    for name in ("damaged", "unfinished"):
        shutil.copytree(trained, name)
    for weights in Path("damaged").glob("checkpoints/*/model.safetensors"):
        weights.write_bytes(weights.read_bytes()[:-1])
    Path("unfinished/result.json").unlink()
    for folder in list(Path("unfinished/checkpoints").iterdir()):  # as they are while they are being written
        folder.rename(folder.with_name(f".partial-{folder.name}"))
    answer = command("serve", *arguments)
    assert answer.code == 2
    assert words in answer.error
