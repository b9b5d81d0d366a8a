"""Code in C or C++ beside this package, compiled for this very processor and kept in the user's cache folder."""

import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

_PARALLEL = "-fopenmp"  # left out where the compiler has no OpenMP: one thread then


def compiled(source: Path, setting: str, usual: str, flags: Sequence[str]) -> Path:
    """The shared library of `source`, compiled now if this machine has none yet.

    setting: the environment variable that names the compiler, `usual` where it is not set. Raises `OSError` where there
    is no compiler, `subprocess.SubprocessError` where it fails; its words are in `stderr`.
    """
    asked = os.environ.get(setting, usual)
    key = hashlib.sha256("\n".join([source.read_text(), *flags, _PARALLEL, _processor()]).encode()).hexdigest()[:16]
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "windtunnel"
    path = folder / f"{source.stem}-{key}.so"
    if path.exists():
        return path
    compiler = shutil.which(asked)
    if compiler is None:
        raise OSError(f"no compiler {asked!r} (install one, or name it in {setting})")
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as made:
        fresh = Path(made) / path.name
        command = [compiler, *flags, "-fPIC", "-shared", str(source), "-o", str(fresh)]
        if subprocess.run([*command, _PARALLEL], capture_output=True).returncode:
            subprocess.run(command, check=True, capture_output=True, text=True)
        fresh.replace(path)
    return path


def _processor() -> str:
    """What code for this very processor depends on."""
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.exists() else [platform.processor()]
    return "\n".join(
        [platform.machine(), *sorted({line for line in lines if line.startswith(("model name", "flags"))})]
    )
