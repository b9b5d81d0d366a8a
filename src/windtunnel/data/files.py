"""Files that are whole or absent: written beside their place, synchronised, and renamed into it."""

import errno
import hashlib
import os
import sys
import tempfile
from pathlib import Path

from windtunnel.errors import InputError, WorkError


def default_cache() -> Path:
    """WINDTUNNEL_CACHE if set, otherwise the platform's folder for caches."""
    named = os.environ.get("WINDTUNNEL_CACHE")
    if named:
        return Path(named)
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "windtunnel" / "cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "windtunnel"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "windtunnel"


def write_file(path: Path, data: bytes) -> None:
    """Write `data` so that a reader sees the old file or the new one, never a part."""
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        Path(temporary).chmod(0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def synchronise(folder: Path) -> None:
    """Make the names in a folder durable, where the platform lets a folder be opened."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def as_one_line(error: OSError, folder: Path) -> Exception:
    """What a failed write means: no space left is failed work, a folder that cannot be written is bad input."""
    reason = error.strerror or str(error)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return WorkError(f"no space left in {folder} ({reason}); nothing half-written was kept")
    return InputError(f"folder {folder} cannot be written: {reason}; name another, e.g. by WINDTUNNEL_CACHE")
