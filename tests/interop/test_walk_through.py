"""The walk through GPT-Neo 125M in docs/hugging-face.md: every line of it, at sizes that take no time."""

import argparse
import re
import shlex
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner

from tests.interop.pairs import near
from windtunnel.cli.app import app
from windtunnel.runs import load

PAGE = Path(__file__).parents[2] / "docs" / "hugging-face.md"
SMALLER = {
    "hidden_size=768, num_layers=12, num_heads=12": "hidden_size=32, num_layers=2, num_heads=4, "
    "max_position_embeddings=64",
    "], 6]]": "], 1]]",
    "hidden_size=256, num_hidden_layers=4": "hidden_size=32, num_hidden_layers=2, max_position_embeddings=64",
    "vocab_size=5000, special_tokens": "vocab_size=600, special_tokens",
    " --tokens 8k": " --tokens 1k",
}


@pytest.fixture
def section() -> str:
    """The section, with smaller numbers."""
    text = PAGE.read_text().split("## GPT-Neo 125M, in, extended and out\n")[1].split("\n## ")[0]
    for published, small in SMALLER.items():
        assert published in text
        text = text.replace(published, small)
    return text


def test_every_line(section: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WINDTUNNEL_CACHE", str(tmp_path / "cache"))
    Path("my.txt").write_bytes(Path(argparse.__file__).read_bytes())
    (program,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    exec(program, {})
    commands = re.findall(r"^    windtunnel (.*)$", section, re.MULTILINE)
    assert len(commands) == 7
    for command in commands:
        result = CliRunner().invoke(app, shlex.split(command))
        assert result.exit_code == 0, f"{command}: {result.stderr}"
    for name, kind in (("neo", "GPTNeoForCausalLM"), ("llama", "LlamaForCausalLM")):
        theirs = AutoModelForCausalLM.from_pretrained(f"out/{name}", attn_implementation="eager").eval()
        assert type(theirs).__name__ == kind
        assert theirs.config.max_position_embeddings == 128
        tokens = torch.randint(600, (1, 128))
        with torch.no_grad():
            near(load(f"runs/{name}-4k").model(tokens).logits, theirs(tokens).logits)
    assert theirs.config.rope_parameters["rope_type"] == "yarn"
