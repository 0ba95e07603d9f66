"""Decoding of photos: bytes become an upright RGB photo, or an error with the reason."""

import hashlib
import io
import os
import stat
import struct
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    Jpeg2KImagePlugin,
    JpegImagePlugin,
    WebPImagePlugin,
)

from regraft.core.config import IngestConfig
from regraft.core.errors import MissingDriver, UnusablePhoto
from regraft.core.files import filesystem, is_url, location_errors
from regraft.data.ingest.formats import N_HEAD, NOT_READ, ImageFormat, format_of, reads_heic
from regraft.data.ingest.png import open_png
from regraft.data.ingest.tiff import CheckedTiff, eight_bit_grey

# The openers are called directly: Image.open checks the size with a global limit and a warning, and
# neither is thread-safe.
_Opener = Callable[[io.BytesIO], Image.Image]
_OPENERS: dict[str, _Opener] = {
    "JPEG": JpegImagePlugin.jpeg_factory,
    "PNG": open_png,
    "WebP": WebPImagePlugin.WebPImageFile,
    "GIF": GifImagePlugin.GifImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
    "TIFF": CheckedTiff,
    "AVIF": AvifImagePlugin.AvifImageFile,
    "JPEG 2000": Jpeg2KImagePlugin.Jpeg2KImageFile,
}
# Errors that Pillow's decoders raise for broken files, mostly TIFF and GIF.
_BROKEN = (
    OSError,
    EOFError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    AssertionError,
    RuntimeError,
    MemoryError,
    Warning,
    struct.error,
    zlib.error,
)
_LFS = b"version https://git-lfs.github.com/spec/"
_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SWAPPED = (5, 6, 7, 8)  # the orientations that swap width and height


class Unpacked(NamedTuple):
    """An upright RGB photo, possibly reduced; width and height in pixels are the full size."""

    photo: Image.Image
    width: int
    height: int


NO_DRIVER = "no driver"  # reason of an UnusablePhoto: the package for its URL is not installed
NO_LIMIT = sys.maxsize  # bytes of a file, or pixels of a photo whose size ingest has checked


def read_bytes(uri: str, max_bytes: int = NO_LIMIT) -> bytes:
    """Return the bytes of a regular file.

    Args:
        uri: local path or fsspec URL.
        max_bytes: size limit, >= 1; at most max_bytes + 1 bytes are read.

    Raises:
        UnusablePhoto: "missing", "unreadable" (also a pipe, a device, a folder or an invalid URL),
            "no driver" or "too large".
    """
    with _unusable_if_unreadable(uri):
        data = _read_url(uri, max_bytes) if is_url(uri) else _read_local(uri, max_bytes)
    if len(data) > max_bytes:
        raise UnusablePhoto("too large", f"more than {max_bytes} bytes at {uri}")
    return data


@contextmanager
def _unusable_if_unreadable(uri: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise UnusablePhoto("missing", f"no file at {uri}") from None
    except MissingDriver as error:
        raise UnusablePhoto(NO_DRIVER, str(error)) from None
    except location_errors() as error:
        raise UnusablePhoto("unreadable", _access_problem(error)) from None


def _access_problem(error: Exception) -> str:
    """Return the problem without the message of a server, which may quote what it has read."""
    if isinstance(error, OSError) and error.errno:
        return f"{type(error).__name__}: {os.strerror(error.errno)}"
    status = getattr(error, "status", None)  # of an HTTP answer
    suffix = f" {status}" if isinstance(status, int) else ""
    return f"{type(error).__name__}{suffix}: the location cannot be opened"


def _read_local(path: str, max_bytes: int) -> bytes:
    """Return at most max_bytes + 1 bytes, without waiting for a pipe."""
    with open(path, "rb", opener=_open_without_waiting) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise UnusablePhoto("unreadable", f"not a regular file: {path}")
        return file.read() if max_bytes == NO_LIMIT else file.read(max_bytes + 1)


def _open_without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _read_url(url: str, max_bytes: int) -> bytes:
    """Return at most max_bytes + 1 bytes."""
    fs, path = filesystem(url)
    if max_bytes == NO_LIMIT:
        return bytes(fs.cat_file(path))
    with fs.open(path, "rb") as file:
        return bytes(file.read(max_bytes + 1))


def read_photo(
    uri: str, max_pixels: int = IngestConfig().max_pixels, at_least: int = 0, sha256: str = ""
) -> Image.Image:
    """Return the upright RGB photo in a file.

    Args:
        uri: local path or fsspec URL.
        max_pixels: maximum width * height, >= 1.
        at_least: as in unpack().
        sha256: expected checksum of the file; "" = not checked.

    Raises:
        UnusablePhoto: the file contains no usable photo, or has another checksum; the message
            contains the path.
    """
    try:
        data = read_bytes(uri)
        if sha256 and hashlib.sha256(data).hexdigest() != sha256:
            raise UnusablePhoto("changed", "the file has changed since it was listed; run again")
        return decode(data, max_pixels, at_least)
    except UnusablePhoto as error:
        raise UnusablePhoto(error.reason, f"{error.detail} (in {uri})") from None


def decode(data: bytes, max_pixels: int, at_least: int = 0) -> Image.Image:
    """Return the upright RGB photo in these bytes; arguments and errors as in unpack()."""
    return unpack(data, max_pixels, at_least).photo


def unpack(data: bytes, max_pixels: int, at_least: int = 0) -> Unpacked:
    """Return the upright RGB photo in these bytes; the content determines the format, not the name.

    The conversion by content of the file:
        transparency (an alpha channel, a palette, grey or RGB with a transparent entry): blended on
            white; a BMP whose alpha is 0 everywhere has no alpha, because many programs leave it 0;
        palette, 1 bit, grey, CMYK, YCbCr, Lab: converted, grey repeated in three channels;
        12-bit and 16-bit grey: divided by their full scale, whatever the range of the photo;
        other grey (32 bits, signed, float): scaled such that the minimum is black and the maximum
            white, because the file does not define the unit;
        TIFF in which 0 is white: 0 becomes white;
        several frames or pages: the first;
        EXIF orientation: applied; unreadable EXIF data is ignored.

    Args:
        data: the whole file: JPEG, PNG, WebP, GIF, BMP, TIFF, AVIF or JPEG 2000; HEIC if
            pillow-heif is installed.
        max_pixels: maximum width * height at full scale, >= 1, checked before the pixels are
            decoded.
        at_least: pixels, >= 0. A JPEG is decoded at 1/2, 1/4 or 1/8 of its size: the smallest scale
            whose shorter side has at least this length and whose sides are whole numbers. 0 = full
            scale. Other formats are always decoded at full scale.

    Raises:
        UnusablePhoto: "empty file", "git-lfs pointer", "FORMAT is not read", "unsupported layout",
            "too many pixels", "truncated" or "unreadable".
    """
    opener = _opener(data)
    try:
        image = opener(io.BytesIO(data))
        _check_size(image, max_pixels)
        width, height = image.size
        if at_least and isinstance(image, JpegImagePlugin.JpegImageFile):
            _reduce(image, at_least)
        image.load()
        orientation = _orientation(image)
        if orientation in _SWAPPED:
            width, height = height, width
        return Unpacked(_upright(_to_rgb(image), orientation), width, height)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise UnusablePhoto("too many pixels", f"ingest.max_pixels is {max_pixels}") from None
    except _BROKEN as error:
        cut = _is_cut_off(data) or "truncated" in str(error).lower()
        reason = "truncated" if cut else "unreadable"
        # The decoder's own message is not used, because it quotes bytes of the file.
        detail = f"a damaged or unsupported file ({type(error).__name__} while decoding)"
        raise UnusablePhoto(reason, detail) from None


def read_head(uri: str) -> bytes:
    """Return the first N_HEAD bytes of a regular file, or all if it is shorter.

    Args:
        uri: local path or fsspec URL.

    Raises:
        UnusablePhoto: as read_bytes().
    """
    with _unusable_if_unreadable(uri):
        if not is_url(uri):
            return _read_local(uri, N_HEAD - 1)
        fs, path = filesystem(uri)
        return bytes(fs.cat_file(path, start=0, end=N_HEAD))


def is_lfs_pointer(data: bytes) -> bool:
    """Return whether the file is a Git LFS pointer, which stands for a file not downloaded yet."""
    return data.startswith(_LFS)


def _opener(data: bytes) -> _Opener:
    if not data:
        raise UnusablePhoto("empty file", "0 bytes")
    if is_lfs_pointer(data):
        raise UnusablePhoto("git-lfs pointer", "the photo was not downloaded; run: git lfs pull")
    kind = format_of(data)
    if kind is None:
        raise UnusablePhoto("unreadable", f"expected {', '.join(_OPENERS)}, got other content")
    return _OPENERS.get(kind.name) or _optional_opener(kind)


def _optional_opener(kind: ImageFormat) -> _Opener:
    if kind.name != "HEIC" or not reads_heic():
        raise UnusablePhoto(kind.name + NOT_READ, kind.remedy)
    from pillow_heif import HeifImageFile

    opener: _Opener = HeifImageFile
    return opener


def _check_size(image: Image.Image, max_pixels: int) -> None:
    if image.width * image.height > max_pixels:
        size = f"{image.width} x {image.height}"
        raise UnusablePhoto("too many pixels", f"{size}, ingest.max_pixels is {max_pixels}")


def _reduce(image: JpegImagePlugin.JpegImageFile, at_least: int) -> None:
    """Make Pillow decode at the smallest scale that at_least allows.

    Both sides must be divisible by the scale. Otherwise the last column is a partial pixel, the
    photo becomes slightly too wide, and an embedding differs twice as much (measured).
    """
    width, height = image.size
    for scale in (8, 4, 2):
        if min(width, height) >= scale * at_least and width % scale == height % scale == 0:
            image.draft(None, (width // scale, height // scale))
            return


def _is_cut_off(data: bytes) -> bool:
    """Return whether the file ends before the end that its format defines."""
    if data.startswith(b"\xff\xd8"):
        return b"\xff\xd9" not in data[-1024:]
    if data.startswith(b"\x89PNG"):
        return b"IEND" not in data[-1024:]
    if data.startswith(b"GIF8"):
        return not data.rstrip(b"\0").endswith(b";")
    if data.startswith(b"RIFF"):
        return len(data) < int.from_bytes(data[4:8], "little") + 8
    if data.startswith(b"BM"):
        return len(data) < int.from_bytes(data[2:6], "little")
    if data[4:8] in (b"ftyp", b"jP  "):
        return _is_box_cut_off(data)
    return data.startswith(b"\xff\x4f\xff\x51") and not data.endswith(b"\xff\xd9")


def _is_box_cut_off(data: bytes) -> bool:
    """Return whether the last box of a file of boxes ends behind the file (ISO 14496-12)."""
    start = 0
    while start + 8 <= len(data):
        size = int.from_bytes(data[start : start + 4], "big")
        if size == 1:
            size = int.from_bytes(data[start + 8 : start + 16], "big")
        if size == 0:  # up to the end of the file, which is a codestream of JPEG 2000
            return not data.endswith(b"\xff\xd9")
        start += max(size, 8)
    return start != len(data)


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8; 1 if there is none."""
    try:
        orientation = image.getexif().get(_ORIENTATION, 1)
        return int(orientation) if orientation in _UPRIGHT else 1
    except _BROKEN:
        return 1


def _upright(image: Image.Image, orientation: int) -> Image.Image:
    return image if orientation == 1 else image.transpose(_UPRIGHT[orientation])


def _to_rgb(image: Image.Image) -> Image.Image:
    if isinstance(image, CheckedTiff):
        image = eight_bit_grey(image, image.layout)
    if image.mode.startswith("I;16"):
        return _sixteen_bit_grey(image)
    is_bmp = isinstance(image, BmpImagePlugin.BmpImageFile)
    if is_bmp and image.mode == "RGBA" and image.getchannel("A").getextrema() == (0, 0):
        return image.convert("RGB")
    if image.has_transparency_data:
        straight = image.convert("LA") if image.mode == "La" else image
        with_alpha = straight.convert("RGBA")
        white = Image.new("RGBA", with_alpha.size, "white")
        return Image.alpha_composite(white, with_alpha).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _sixteen_bit_grey(image: Image.Image) -> Image.Image:
    levels = np.asarray(image)  # (H, W)
    grey = ((levels.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if (transparent := image.info.get("transparency")) is not None:
        grey[levels == transparent] = 255
    return Image.fromarray(grey).convert("RGB")
