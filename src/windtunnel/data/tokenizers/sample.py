"""The part of a large corpus that a tokenizer is trained on, kept on the disk: texts are chosen by their hashes."""

import hashlib
import tempfile
from array import array
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import IO

import numpy as np


class Sample:
    """Texts that can be read any number of times, from the corpus itself or from a temporary file."""

    def __init__(
        self, texts: Iterable[str] | None, file: IO[bytes] | None = None, lengths: tuple[int, ...] = ()
    ) -> None:
        self._texts, self._file, self._lengths = texts, file, lengths

    def __iter__(self) -> Iterator[str]:
        if self._texts is not None:
            yield from self._texts
        if self._file is not None:
            self._file.seek(0)
            for length in self._lengths:
                yield self._file.read(length).decode("utf-8", errors="ignore")


@contextmanager
def sampled(texts: Iterable[str], limit: int) -> Iterator[Sample]:
    """All texts up to `limit` bytes, else those first in the order of their SHA-256; the last gives its head.

    The corpus is read twice where it is larger, and 24 bytes are kept for each text.
    """
    digests, sizes = bytearray(), array("q")
    for text in texts:
        data = text.encode("utf-8")
        digests += hashlib.sha256(data).digest()[:16]
        sizes.append(len(data))
    if sum(sizes) <= limit:
        yield Sample(texts)
        return
    keys = np.frombuffer(bytes(digests), dtype=">u8").reshape(-1, 2)
    order = np.lexsort((keys[:, 1], keys[:, 0]))
    ends = np.cumsum(np.array(sizes, dtype=np.int64)[order])
    last = int(np.searchsorted(ends, limit))  # the one that reaches the limit
    starts = [0, *ends[: last + 1].tolist()]
    lengths = (*np.diff(starts[:-1]).tolist(), limit - starts[-2])
    places = {int(index): place for place, index in enumerate(order[: last + 1])}
    with tempfile.TemporaryFile(prefix="windtunnel-sample-") as file:
        for index, text in enumerate(texts):
            if index in places:
                file.seek(starts[places[index]])
                file.write(text.encode("utf-8")[: lengths[places[index]]])
        yield Sample(None, file, lengths)
