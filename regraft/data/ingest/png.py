"""PNG files: what Pillow does not read of them as it should (seen in Pillow 13.0.0)."""

import io
import zlib
from collections.abc import Iterator

from PIL import PngImagePlugin

from regraft.core.errors import UnusablePhoto

_SIGNATURE = 8  # bytes before the first chunk
_FRAME = 12  # bytes of a chunk besides its data: length, type, checksum
_BIT_DEPTH, _COLOUR_TYPE = 24, 25  # offsets in a file, whose first chunk is IHDR
_GREY, _RGB = 0, 2  # colour types
_PROFILE = b"iCCP"
_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
# The keywords of texts that may contain the EXIF orientation.
_ORIENTED = (b"Raw profile type exif", b"XML:com.adobe.xmp")
_MAX_TEXTS = 2  # a file of a thousand compressed texts must not cost a second


def open_png(file: io.BytesIO) -> PngImagePlugin.PngImageFile:
    """Return the photo, whatever texts and colour profile the file carries.

    Pillow refuses a file with a text or a profile of more than a megabyte. The photo is complete
    without them, so they are left out, except for a text with the orientation.

    Raises:
        UnusablePhoto: "unsupported layout".
        SyntaxError, ValueError, ...: the file is damaged.
    """
    data = file.getvalue()
    image = PngImagePlugin.PngImageFile(io.BytesIO(_without_texts(data)))
    transparent = image.info.get("transparency")
    if transparent is None or image.mode == "P":
        return image
    depth, colour_type = data[_BIT_DEPTH], data[_COLOUR_TYPE]
    if colour_type == _RGB and depth == 16:
        # Pillow keeps eight bits, which do not tell the transparent colour from its neighbours.
        detail = "PNG with 16-bit RGB and a transparent colour; save it with an alpha channel"
        raise UnusablePhoto("unsupported layout", detail)
    if colour_type == _GREY and depth in (2, 4):
        # Pillow scales the pixels to eight bits, but not the transparent level.
        image.info["transparency"] = transparent * 255 // (2**depth - 1)
    return image


def _without_texts(data: bytes) -> bytes:
    parts, start, n_texts = [], 0, 0
    for kind, at, end in _chunks(data):
        if kind != _PROFILE and kind not in _TEXTS:
            continue
        content = data[at + 8 : end - 4]
        if kind in _TEXTS and content.startswith(_ORIENTED) and n_texts < _MAX_TEXTS:
            n_texts += 1
            if _is_short(kind, content):
                continue
        parts.append(data[start:at])
        start = end
    return b"".join([*parts, data[start:]]) if parts else data


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield the kind, the start and the end of each complete chunk before the end of the image."""
    start = _SIGNATURE
    while (kind := data[start + 4 : start + 8]) and kind != b"IEND":
        end = start + _FRAME + int.from_bytes(data[start : start + 4], "big")
        if end > len(data):
            return
        yield kind, start, end
        start = end


def _is_short(kind: bytes, content: bytes) -> bool:
    """Return whether Pillow accepts the text, which may be compressed."""
    limit = PngImagePlugin.MAX_TEXT_CHUNK
    rest = content.partition(b"\0")[2]  # behind the keyword
    compressed = rest[1:] if kind == b"zTXt" else b""
    if kind == b"iTXt" and rest[:1] == b"\1":
        compressed = rest[2:].split(b"\0", 2)[-1]  # behind the language and the translated keyword
    try:
        inflated = zlib.decompressobj().decompress(compressed, limit + 1)
    except zlib.error:
        inflated = b""  # Pillow ignores such a text
    return max(len(content), len(inflated)) <= limit
