"""Compiled decoding: the same logits, states and texts as eager decoding, or one line of why not."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.inference.compiled import texts
from tests.recipes.cases import model_of
from windtunnel.inference import compiled, programs
from windtunnel.inference.engine import Engine, EngineSettings

ROOT = Path(__file__).parents[2]
# One of each mixer class with a state of its own, and both kinds of weight scales; tables of positions by axes.
CASES = (
    "llama-grouped",
    "llama-convolution",
    "gpt3-window-of-2",
    "gpt3-alibi",
    "diff_transformer",
    "diff_transformer_v2",
    "ngpt",
    "griffin",
    "mamba",
    "lru",
    "h3",
    "efficient_attention",
    "longformer",
    "topk_attention",
    "gpt_neo-axial-pattern",
    "llama-grouped:bfloat16",
    "griffin:float16",
)


def test_without_a_compiler_decoding_goes_on_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("CXX", "no-such-compiler")
    model = model_of("llama", layers=1)
    with pytest.warns(RuntimeWarning, match=r"uncompiled: there is no C\+\+ compiler 'no-such-compiler'"):
        found = texts(model, compiled=True)
    assert found == texts(model, compiled=False)
    said: list[str] = []
    Engine(model, settings=EngineSettings(compiled=True), say=said.append)
    assert len(said) == 2
    assert "compiling" in said[0]
    assert "no-such-compiler" in said[1]


def test_what_cannot_be_traced_is_said_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    said: list[str] = []
    engine = Engine(model_of("bigbird", layers=1), settings=EngineSettings(compiled=True), say=said.append)
    assert engine.batch.step is None
    assert len(said) == 2
    assert said[1].startswith("decoding goes on uncompiled: ")
    assert "\n" not in said[1]
    assert capfd.readouterr() == ("", "")


def test_a_program_that_is_wrong_is_not_used() -> None:
    model = model_of("llama", layers=1)

    def run(given: list[torch.Tensor]) -> list[torch.Tensor]:
        return [torch.zeros(len(given[0]), 1, model.spec.vocab)]

    with pytest.raises(compiled.WorkError, match="differs from the eager one"):
        compiled._check(model, programs.Program(run, 0.0, fresh=False), None, "single")


def test_a_program_is_named_by_what_it_depends_on(monkeypatch: pytest.MonkeyPatch) -> None:
    model, deeper = model_of("llama", layers=1), model_of("llama", layers=2)
    name = programs._key(model)
    assert name == programs._key(model_of("llama", seed=3, layers=1))
    assert name != programs._key(deeper)
    assert name != programs._key(model_of("llama", layers=1, dtype=torch.float64))
    monkeypatch.setattr(programs, "_sources", lambda: "edited")
    assert name != programs._key(model)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_compiled_steps_are_the_eager_ones(case: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.inference.compiled", str(tmp_path), case]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1800, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
