"""The formats of image files: their signatures, their extensions, and which of them are read."""

import importlib.util
import os
import re
from functools import cache
from typing import NamedTuple

N_HEAD = 144  # bytes; the signature of DICOM, the last to come, ends at byte 132

NOT_READ = " is not read"  # behind the name of a format: the reason why a photo is unusable

_CONVERT = "convert the files to JPEG, PNG or TIFF"
_DEVELOP = "develop the files to JPEG or TIFF with a raw converter"


class ImageFormat(NamedTuple):
    """A format of image files.

    signature: pattern of the first bytes.
    extensions: lower case, with the dot.
    remedy: what to do with files of a format that is not read; "" = it is read.
    """

    name: str
    signature: bytes
    extensions: tuple[str, ...]
    remedy: str = ""


def _brands(*names: bytes) -> bytes:
    """Return the pattern of an ISO media file (ISO 14496-12) with one of the main brands."""
    return rb"....ftyp(?:" + b"|".join(names) + b")"


_FORMATS = (
    ImageFormat("JPEG", rb"\xff\xd8\xff", (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo")),
    ImageFormat("PNG", rb"\x89PNG\r\n\x1a\n", (".png", ".apng")),
    ImageFormat("WebP", rb"RIFF....WEBP", (".webp",)),
    ImageFormat("GIF", rb"GIF8[79]a", (".gif",)),
    # The pattern includes the size of the second header, because any text may begin with BM.
    ImageFormat("BMP", rb"BM.{12}[\x0c\x28\x34\x38\x40\x6c\x7c]\0\0\0", (".bmp", ".dib")),
    # The main brand mif1 says only that there are images; the list of brands behind it says which.
    ImageFormat(
        "AVIF", _brands(b"avif", b"avis") + rb"|....ftypmif1.{4}(?:.{4})*?avif", (".avif", ".avifs")
    ),
    ImageFormat(
        "JPEG 2000",
        rb"\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51",
        (".jp2", ".j2k", ".jpx", ".jpf", ".j2c", ".jpc"),
    ),
    ImageFormat(
        "HEIC",
        _brands(b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"),
        (".heic", ".heif", ".hif", ".heics", ".heifs"),
        f"pip install 'regraft[heif]' (pillow-heif), or {_CONVERT}",
    ),
    ImageFormat(
        "RAW",  # the photos of a camera's sensor; many are TIFF files, see tiff.py
        rb"II\*\0....CR|"
        + _brands(b"crx ")
        + rb"|IIR[OS]|MMOR|IIU\0|FUJIFILMCCD-RAW|FOVb|\0MRM|II\x1a\0\0\0HEAPCCDR",
        (
            *(".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dcr", ".dng", ".erf", ".iiq", ".kdc"),
            *(".mef", ".mos", ".mrw", ".nef", ".nrw", ".orf", ".pef", ".raf", ".raw", ".rw2"),
            *(".rwl", ".sr2", ".srf", ".srw", ".x3f"),
        ),
        _DEVELOP,
    ),
    ImageFormat("TIFF", rb"II[*+]\0|MM\0[*+]", (".tif", ".tiff")),
    ImageFormat("JPEG XL", rb"\xff\x0a|\0\0\0\x0cJXL \r\n\x87\n", (".jxl",), _CONVERT),
    ImageFormat("JPEG XR", rb"II\xbc[\x00\x01]", (".jxr", ".wdp", ".hdp"), _CONVERT),
    ImageFormat("Photoshop", rb"8BPS\0[\x01\x02]", (".psd", ".psb"), _CONVERT),
    ImageFormat("OpenEXR", rb"v/1\x01", (".exr",), _CONVERT),
    ImageFormat("Radiance HDR", rb"#\?(?:RADIANCE|RGBE)", (".hdr",), _CONVERT),
    ImageFormat(
        "PNM", rb"P[1-7][ \t\r\n][\s\d#W]", (".ppm", ".pgm", ".pbm", ".pnm", ".pam"), _CONVERT
    ),
    ImageFormat("QOI", rb"qoif", (".qoi",), _CONVERT),
    # TGA has no signature: true colour or grey, no palette, a usual depth.
    ImageFormat("TGA", rb"\0\0[\x02\x03\x0a\x0b]\0{5}.{8}[\x08\x10\x18\x20]", (".tga",), _CONVERT),
    ImageFormat("DICOM", rb".{128}DICM", (".dcm", ".dicom"), _CONVERT),
)
READ_EXTENSIONS = frozenset(
    extension for kind in _FORMATS if not kind.remedy for extension in kind.extensions
)
PHOTO_EXTENSIONS = frozenset(extension for kind in _FORMATS for extension in kind.extensions)


def format_of(head: bytes) -> ImageFormat | None:
    """Return the format of a file by its content; None = not an image of a known format.

    Args:
        head: the first bytes of the file; N_HEAD bytes are enough.

    >>> format_of(b"GIF89a").name
    'GIF'
    """
    for kind in _FORMATS:
        if re.match(kind.signature, head[:N_HEAD], re.DOTALL):
            return kind
    return None


def extension_of(name: str) -> str:
    """Return the extension of a file in lower case; "" = none.

    What cannot be an extension, such as the end of a version number, a date or a query, is none.

    >>> extension_of("a.JPG"), extension_of("IMG"), extension_of("2024.05.17")
    ('.jpg', '', '')
    """
    extension = os.path.splitext(name)[1].lower()
    return extension if re.fullmatch(r"\.[a-z][a-z0-9]{0,9}|\.3fr", extension) else ""


@cache
def reads_heic() -> bool:
    """Return whether the optional package that reads HEIC is installed."""
    return importlib.util.find_spec("pillow_heif") is not None
