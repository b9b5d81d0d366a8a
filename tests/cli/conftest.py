"""The command line in this process, and as a program."""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from typer.testing import CliRunner


class Answer(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one JSON document on stdout."""
        return json.loads(self.out)

    @property
    def error(self) -> str:
        """The one line that says what was wrong."""
        lines = [line for line in self.err.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1, self.err
        assert "Traceback" not in self.err + self.out
        return lines[0].removeprefix("error: ")


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Answer]:
    """Runs `windtunnel ...` in this process, in an empty folder."""
    from windtunnel.cli.app import app

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WINDTUNNEL_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("WINDTUNNEL_DEBUG", raising=False)

    def run(*arguments: object) -> Answer:
        result = CliRunner().invoke(app, [str(each) for each in arguments])
        return Answer(result.exit_code, result.stdout, result.stderr)

    return run


@pytest.fixture
def program(tmp_path: Path) -> Callable[..., "subprocess.Popen[str]"]:
    """Starts `python -m windtunnel ...` in an empty folder."""
    environment = {**os.environ, "WINDTUNNEL_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}

    def start(*arguments: object, options: tuple[str, ...] = ()) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, *options, "-m", "windtunnel", *(str(each) for each in arguments)],
            cwd=tmp_path,
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    return start


@pytest.fixture
def text(tmp_path: Path) -> Path:
    """A real text of about 100 KB, small enough for bytes."""
    path = tmp_path / "my.txt"
    path.write_bytes(Path(argparse.__file__).read_bytes())
    return path
