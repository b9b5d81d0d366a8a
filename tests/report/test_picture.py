"""PNG files, read back by another program's decoder (matplotlib is not needed: the format is short)."""

import struct
import zlib

import numpy as np

from windtunnel.report.picture import png, sheet


def read(data: bytes) -> np.ndarray:
    """A reader of grey PNG files with unfiltered lines, which checks every checksum."""
    assert data[:8] == bytes([137, 80, 78, 71, 13, 10, 26, 10])
    blocks, at = {}, 8
    while at < len(data):
        (length,), kind = struct.unpack_from(">I", data, at), data[at + 4 : at + 8]
        body = data[at + 8 : at + 8 + length]
        assert struct.unpack_from(">I", data, at + 8 + length)[0] == zlib.crc32(kind + body)
        blocks[kind] = body
        at += 12 + length
    width, height, depth, colour, *methods = struct.unpack(">IIBBBBB", blocks[b"IHDR"])
    assert (depth, colour, methods, list(blocks)) == (8, 0, [0, 0, 0], [b"IHDR", b"IDAT", b"IEND"])
    lines = np.frombuffer(zlib.decompress(blocks[b"IDAT"]), np.uint8).reshape(height, width + 1)
    assert not lines[:, 0].any()
    return lines[:, 1:]


def test_a_picture_comes_back() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (5, 9), dtype=np.uint8)
    assert np.array_equal(read(png(picture)), picture)
    assert np.array_equal(read(png(picture.T)), picture.T)


def test_a_sheet_of_pictures() -> None:
    pictures = np.arange(5 * 2 * 3, dtype=np.uint8).reshape(5, 2, 3)
    page = sheet(pictures, across=2, scale=2, gap=1)
    assert page.shape == (3 * 5 + 1, 2 * 7 + 1)
    for index, (top, left) in enumerate([(1, 1), (1, 8), (6, 1), (6, 8), (11, 1)]):
        cut = page[top : top + 4, left : left + 6]
        assert np.array_equal(cut[::2, ::2], pictures[index])
        assert np.array_equal(cut[1::2, 1::2], pictures[index])
    assert (page[:, 0] == 255).all()
    assert (page[11:, 8:] == 255).all()
