"""Pictures of clips side by side, as a PNG file (W3C, Portable Network Graphics, third edition)."""

import struct
import zlib

import numpy as np
from numpy.typing import NDArray

GAP = 2  # pixels between frames, white


def contact_sheet(clips: NDArray[np.uint8]) -> bytes:
    """One line for each clip, its frames from left to right; clips are uint8 [clips, frames, height, width, 3]."""
    framed = np.pad(clips, ((0, 0), (0, 0), (GAP, GAP), (GAP, GAP), (0, 0)), constant_values=255)
    rows, columns, height, width, _ = framed.shape
    return _png(framed.swapaxes(1, 2).reshape(rows * height, columns * width, 3))


def _png(picture: NDArray[np.uint8]) -> bytes:
    height, width, _ = picture.shape
    lines = np.pad(picture.reshape(height, -1), ((0, 0), (1, 0)))  # each begins with its filter, 0 for none
    header = struct.pack(">2I5B", width, height, 8, 2, 0, 0, 0)  # 8 bits, red, green and blue
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(lines.tobytes())), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(name, body) for name, body in chunks)


def _chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
