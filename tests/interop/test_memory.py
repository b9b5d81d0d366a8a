"""An import keeps a few tensors in memory, not the checkpoint: a sixth of its size beyond the file that it maps."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from windtunnel.bench.importing import make_folder
from windtunnel.interop.config import Config
from windtunnel.interop.families import FAMILIES
from windtunnel.interop.tensors import WHOLE

# VmHWM is the peak of what is resident, mapped files included; writing 5 to clear_refs sets it to what is resident now.
_MEASURED = """
import re, sys
from pathlib import Path
import torch
from windtunnel.interop.importing import import_folder

def kilobytes(name):
    return int(re.search(rf"{name}:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])

first, source, out, dtype = sys.argv[1:]
torch.set_num_threads(1)
import_folder(Path(first), Path(out) / "first")
before = kilobytes("VmRSS")
Path("/proc/self/clear_refs").write_text("5")
import_folder(Path(source), Path(out) / "second", dtype=getattr(torch, dtype))
print(1024 * (kilobytes("VmHWM") - before))
"""


def gpt2(layers: int, width: int) -> dict[str, object]:
    """One whose matrices are turned over, which makes a copy of each."""
    return {"model_type": "gpt2", "vocab_size": 4000, "n_embd": width, "n_layer": layers, "n_head": 8}


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peaks of memory are read from /proc")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_checkpoint_is_never_in_memory(dtype: str, tmp_path: Path) -> None:
    for name, layers, width in (("small", 1, 16), ("large", 24, 512)):
        values = gpt2(layers, width)
        spec = FAMILIES["gpt2"].read(Config(values, "config.json"))
        make_folder(tmp_path / name, "gpt2", spec, torch.float32)
    arguments = [str(tmp_path / "small"), str(tmp_path / "large"), str(tmp_path), dtype]
    found = subprocess.run([sys.executable, "-c", _MEASURED, *arguments], check=True, capture_output=True, text=True)
    size = (tmp_path / "large" / WHOLE).stat().st_size
    assert size > 300_000_000
    assert size < int(found.stdout) + size // 2  # the file was mapped: otherwise this says nothing
    assert int(found.stdout) < size + size // 6
    assert json.loads((tmp_path / "second" / "run.json").read_text())["imported"]["dtype"] == dtype
