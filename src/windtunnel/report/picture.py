"""Grey pictures as PNG files (ISO/IEC 15948), without a library: a header, one compressed block, an end."""

import struct
import zlib

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]


def png(pixels: Pixels) -> bytes:
    """The file of a picture [h w] of 256 grey levels, 0 black."""
    height, width = pixels.shape
    lines = b"".join(b"\0" + row.tobytes() for row in np.ascontiguousarray(pixels))  # filter 0: as it is
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    blocks = ((b"IHDR", header), (b"IDAT", zlib.compress(lines, 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_block(kind, data) for kind, data in blocks)


def _block(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def sheet(pictures: Pixels, across: int, scale: int = 4, gap: int = 4) -> Pixels:
    """Pictures [n h w] beside and below each other, `across` in a line, each pixel as `scale` x `scale`, on white."""
    count, height, width = pictures.shape
    down = -(-count // across)
    high, wide = scale * height + gap, scale * width + gap
    page = np.full((down * high + gap, across * wide + gap), 255, dtype=np.uint8)
    for index, picture in enumerate(pictures):
        top, left = gap + index // across * high, gap + index % across * wide
        page[top : top + scale * height, left : left + scale * width] = picture.repeat(scale, 0).repeat(scale, 1)
    return page
