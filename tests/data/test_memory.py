"""The memory of preparing a corpus does not grow with its text."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import zstandard

PREPARE = """
import json, resource, sys
from pathlib import Path
from windtunnel.data.corpus import read_corpus
from windtunnel.data.shards import prepare
made = prepare(read_corpus(sys.argv[1]), sys.argv[3], 128, 65_536, Path(sys.argv[2]))
print(json.dumps([resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, made.record["bytes"]]))
"""
MEGABYTE = 1 << 20


def write_corpus(path: Path, size: int) -> None:
    """The Pile's format, about `size` bytes of text in documents of 6 KB."""
    draw = np.random.default_rng(0)
    words = np.array(["".join(draw.choice(list("etaoinshr"), size=n)) for n in draw.integers(2, 9, size=5000)])
    written = 0
    with path.open("wb") as file, zstandard.ZstdCompressor(level=1).stream_writer(file) as stream:
        while written < size:
            text = " ".join(words[draw.integers(0, len(words), size=1000)])
            record = {"text": text, "meta": {"pile_set_name": "ab"[written % 2]}}
            stream.write(json.dumps(record).encode() + b"\n")
            written += len(text)


@pytest.mark.slow
def test_the_peak_is_flat_as_the_corpus_doubles(tmp_path: Path) -> None:
    peaks = []
    for size in (120 * MEGABYTE, 240 * MEGABYTE):
        corpus = tmp_path / f"{size}.jsonl.zst"
        write_corpus(corpus, size)
        command = [sys.executable, "-c", PREPARE, str(corpus), str(tmp_path / "cache"), "bytes"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=3000, check=True)
        peak, prepared = json.loads(done.stdout.splitlines()[-1])
        assert prepared >= size
        peaks.append(peak)
    assert peaks[1] < peaks[0] + 0.1 * 120 * MEGABYTE
