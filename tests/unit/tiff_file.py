"""A TIFF of any layout, written by hand: Pillow writes few of them."""

import struct
import zlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

GREY_FALLS, GREY, RGB, PALETTE, CMYK, YCBCR = 0, 1, 2, 3, 5, 6  # PhotometricInterpretation
UNSIGNED, SIGNED, FLOAT = 1, 2, 3  # SampleFormat
_SIZES = {"H": 2, "I": 4, "B": 1}


class Layout(NamedTuple):
    """How the samples of a TIFF are stored; the fields are those of the TIFF specification."""

    photometric: int | None
    bits: int
    sample_format: int = UNSIGNED
    planar: int = 1
    extra: tuple[int, ...] = ()
    compressed: bool = False
    order: str = "<"
    predictor: int = 1
    tiled: bool = False
    subsampling: tuple[int, int] | None = None
    tags: tuple[tuple[int, str, tuple[int, ...]], ...] = ()


def write_tiff(samples: np.ndarray, layout: Layout) -> bytes:
    """Return the file of samples (H, W, S), as integers or floats of the layout's range.

    With the planar configuration 2 each sample has strips of its own; a strip has at most 16 rows.
    """
    height, width, n_samples = samples.shape
    planes = [samples] if layout.planar == 1 else np.split(samples, n_samples, axis=2)
    side = 16
    pieces = []
    for plane in planes:
        for top in range(0, height, side):
            rows = plane[top : top + side]
            lefts = range(0, width, side) if layout.tiled else (0,)
            for left in lefts:
                piece = rows[:, left : left + side] if layout.tiled else rows
                if layout.tiled:
                    lack = [(0, side - piece.shape[0]), (0, side - piece.shape[1]), (0, 0)]
                    piece = np.pad(piece, lack)
                data = _packed(piece, layout)
                pieces.append(zlib.compress(data) if layout.compressed else data)
    offsets, at = [], 8
    for piece in pieces:
        offsets.append(at)
        at += len(piece) + len(piece) % 2
    sizes = tuple(len(piece) for piece in pieces)
    tags = {
        256: ("I", (width,)),
        257: ("I", (height,)),
        258: ("H", (layout.bits,) * n_samples),
        259: ("H", (8 if layout.compressed else 1,)),
        277: ("H", (n_samples,)),
        284: ("H", (layout.planar,)),
        339: ("H", (layout.sample_format,) * n_samples),
    }
    if layout.tiled:
        tags |= {322: ("I", (side,)), 323: ("I", (side,))}
        tags |= {324: ("I", tuple(offsets)), 325: ("I", sizes)}
    else:
        tags |= {273: ("I", tuple(offsets)), 278: ("I", (side,)), 279: ("I", sizes)}
    if layout.photometric is not None:
        tags[262] = ("H", (layout.photometric,))
    if layout.extra:
        tags[338] = ("H", layout.extra)
    if layout.predictor != 1:
        tags[317] = ("H", (layout.predictor,))
    if layout.subsampling:
        tags[530] = ("H", layout.subsampling)
    tags |= {tag: (kind, values) for tag, kind, values in layout.tags}
    body = b"".join(piece + bytes(len(piece) % 2) for piece in pieces)
    head = (b"II*\0" if layout.order == "<" else b"MM\0*") + struct.pack(f"{layout.order}I", at)
    return head + body + _directory(tags, at, layout.order)


def _packed(piece: np.ndarray, layout: Layout) -> bytes:
    rows = piece.reshape(piece.shape[0], -1)
    if layout.bits in (1, 2, 4, 12):
        bits = (rows[..., None].astype(np.uint16) >> np.arange(layout.bits - 1, -1, -1)) & 1
        return np.packbits(bits.reshape(len(rows), -1).astype(np.uint8), axis=1).tobytes()
    kind = {UNSIGNED: "u", SIGNED: "i", FLOAT: "f"}[layout.sample_format]
    dtype = f"{layout.order}{kind}{layout.bits // 8}"
    if layout.predictor == 2:
        steps = piece.astype(dtype[1:])
        steps[:, 1:] -= steps[:, :-1].copy()
        return steps.astype(dtype).tobytes()
    return rows.astype(dtype).tobytes()


def _directory(tags: dict[int, tuple[str, Sequence[int]]], at: int, order: str) -> bytes:
    entries, beyond = b"", b""
    after = at + 2 + 12 * len(tags) + 4
    for tag, (kind, values) in sorted(tags.items()):
        data = struct.pack(f"{order}{len(values)}{kind}", *values)
        if len(data) > 4:
            cell = struct.pack(f"{order}I", after + len(beyond))
            beyond += data + bytes(len(data) % 2)
        else:
            cell = data.ljust(4, b"\0")
        code = {"B": 1, "H": 3, "I": 4}[kind]
        entries += struct.pack(f"{order}HHI", tag, code, len(values)) + cell
    return struct.pack(f"{order}H", len(tags)) + entries + bytes(4) + beyond
