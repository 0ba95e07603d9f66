"""TIFF files: which layouts of samples are read, and what Pillow does not undo in them.

A TIFF may store its samples in thousands of ways, and Pillow returns wrong pixels for some of them
without an error (seen in Pillow 13.0.0). So the layout is read first. A layout whose pixels are not
known to be right is refused by its name.
"""

import sys
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image
from PIL.TiffImagePlugin import (
    COMPRESSION_INFO,
    OPEN_INFO,
    ImageFileDirectory_v2,
    TiffImageFile,
)

from regraft.core.errors import UnusablePhoto
from regraft.data.ingest.formats import NOT_READ

# Tags. Source: TIFF 6.0, its supplements, and DNG 1.7.
_SUBFILE_TYPE, _BITS, _COMPRESSION, _PHOTOMETRIC, _FILL_ORDER = 254, 258, 259, 262, 266
_N_SAMPLES, _PLANAR, _COLOUR_MAP, _SUB_IFDS, _EXTRA = 277, 284, 320, 330, 338
_SAMPLE_FORMAT, _SUBSAMPLING, _DNG_VERSION = 339, 530, 50706
_GREY_FALLS, _GREY, _RGB, _PALETTE, _CMYK, _YCBCR, _LAB = 0, 1, 2, 3, 5, 6, 8  # _PHOTOMETRIC
_SENSOR = (32803, 34892)  # colour filter array, linear raw
_COLOURS = {
    _GREY_FALLS: "grey (0 is white)",
    _GREY: "grey",
    _RGB: "RGB",
    _PALETTE: "palette",
    4: "mask",
    _CMYK: "CMYK",
    _YCBCR: "YCbCr",
    _LAB: "CIELab",
    9: "ICCLab",
    10: "ITULab",
}
_N_COLOURS = {_RGB: 3, _CMYK: 4, _YCBCR: 3, _LAB: 3}  # all others have one sample
_UNSIGNED, _SIGNED, _FLOAT = 1, 2, 3  # _SAMPLE_FORMAT
_KINDS = {_UNSIGNED: "unsigned", _SIGNED: "signed", _FLOAT: "float"}
_DTYPES = {
    (_UNSIGNED, 12): "uint16",
    (_UNSIGNED, 16): "uint16",
    (_UNSIGNED, 32): "uint32",
    (_SIGNED, 8): "int8",
    (_SIGNED, 16): "int16",
    (_SIGNED, 32): "int32",
    (_FLOAT, 32): "float32",
}
_OLD_JPEG, _JPEG = 6, 7  # _COMPRESSION; a JPEG stream describes itself


class TiffLayout(NamedTuple):
    """How the samples of the first page are stored.

    bits: of each sample of a pixel. photometric, sample_format, planar, extra, fill_order,
    compression: as in the TIFF specification; planar 2 = a plane for each sample.
    """

    order: Literal["little", "big"]
    photometric: int
    sample_format: int
    bits: tuple[int, ...]
    planar: int
    extra: tuple[int, ...]
    fill_order: int
    compression: int

    def __str__(self) -> str:
        colours = _COLOURS.get(self.photometric, f"PhotometricInterpretation {self.photometric}")
        kind = _KINDS.get(self.sample_format, f"SampleFormat {self.sample_format}")
        bits = "+".join(map(str, sorted(set(self.bits))))
        return (
            f"{colours}, {len(self.bits)} {kind} samples of {bits} bits"
            f"{' and ExtraSamples ' + str(self.extra) if self.extra else ''}, "
            f"{'a plane for each sample' if self.planar == 2 else 'samples side by side'}, "
            f"compression {self.compression}, {self.order}-endian"
        )

    @property
    def is_compressed(self) -> bool:
        """Whether libtiff decodes the samples, and not Pillow itself."""
        return self.compression != 1


class CheckedTiff(TiffImageFile):
    """A TIFF or BigTIFF file whose layout is one that is read rightly.

    Raises:
        UnusablePhoto: "RAW is not read"; "unsupported layout", with the layout.
        SyntaxError, TypeError, ValueError, struct.error, ...: the file is damaged.
    """

    layout: TiffLayout

    def _open(self) -> None:
        """Read the tags, as Pillow's plugins do in this method."""
        try:
            super()._open()
        except (SyntaxError, LookupError):  # perhaps a layout that Pillow does not know
            _read_layout(self.tag_v2)
            raise
        self.layout = _read_layout(self.tag_v2)


def _read_layout(tags: ImageFileDirectory_v2) -> TiffLayout:
    _refuse_raw(tags)
    bits, n_samples = _numbers(tags, _BITS, (1,)), int(tags.get(_N_SAMPLES, 1))
    formats = set(_numbers(tags, _SAMPLE_FORMAT, (_UNSIGNED,)))
    layout = TiffLayout(
        order="little" if tags.prefix == b"II" else "big",
        photometric=int(tags.get(_PHOTOMETRIC, -1)),
        sample_format=formats.pop() if len(formats) == 1 else -1,
        bits=bits * n_samples if len(bits) == 1 and n_samples <= 8 else bits,
        planar=int(tags.get(_PLANAR, 1)),
        extra=_numbers(tags, _EXTRA, ()),
        fill_order=int(tags.get(_FILL_ORDER, 1)),
        compression=int(tags.get(_COMPRESSION, 1)),
    )
    if problem := "" if layout.compression == _OLD_JPEG else _problem(layout, tags):
        detail = f"TIFF with {problem}; save it as 8-bit RGB or grey"
        raise UnusablePhoto("unsupported layout", detail)
    return layout


def eight_bit_grey(image: Image.Image, layout: TiffLayout) -> Image.Image:
    """Return the loaded photo; grey samples that are no 8-bit grey levels become such.

    Unsigned samples of 12 and 16 bits are divided by their full scale. The unit of all other
    samples (32 bits, signed, float) is not defined by the file: their minimum becomes black and
    their maximum white, or the reverse if 0 is white.

    Raises:
        ValueError: a sample is not finite.
    """
    dtype = _DTYPES.get((layout.sample_format, layout.bits[0]))
    if dtype is None or layout.photometric not in (_GREY_FALLS, _GREY):
        return image
    samples = np.asarray(image).astype(dtype)  # (H, W); Pillow's own types wrap around
    is_swapped = layout.is_compressed and layout.order != sys.byteorder
    if is_swapped and samples.itemsize > 1 and not image.mode.startswith("I;16"):
        samples = samples.byteswap()  # libtiff has swapped the bytes, and Pillow swaps them again
    if dtype == "uint16":
        full = 2 ** layout.bits[0] - 1
        grey = ((samples.astype(np.uint32) * 255 + full // 2) // full).astype(np.uint8)
    else:
        grey = _stretched(samples)
    return Image.fromarray(255 - grey if layout.photometric == _GREY_FALLS else grey)


def _stretched(samples: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    low, high = float(samples.min()), float(samples.max())
    if not np.isfinite([low, high]).all():
        raise ValueError("some grey values are not finite")
    value_range = (high - low) or 1.0  # a uniform photo becomes black
    levels = (samples.astype(np.float64) - low) * (255.0 / value_range)
    return np.rint(levels).astype(np.uint8)  # (H, W)


def _numbers(tags: ImageFileDirectory_v2, tag: int, default: tuple[int, ...]) -> tuple[int, ...]:
    values = tags.get(tag, default)
    return tuple(map(int, values)) if isinstance(values, tuple) else (int(values),)


def _refuse_raw(tags: ImageFileDirectory_v2) -> None:
    """Raise UnusablePhoto if the first page is the sensor's data, or a preview of it."""
    is_preview = int(tags.get(_SUBFILE_TYPE, 0)) & 1 and _SUB_IFDS in tags
    if is_preview or _DNG_VERSION in tags or tags.get(_PHOTOMETRIC) in _SENSOR:
        detail = "a camera's raw file in a TIFF; develop it to JPEG or TIFF with a raw converter"
        raise UnusablePhoto(f"RAW{NOT_READ}", detail)


def _problem(layout: TiffLayout, tags: ImageFileDirectory_v2) -> str:
    """Return why the pixels would not be right; "" = they are."""
    if layout.photometric == -1:
        return "no PhotometricInterpretation, so 0 may be black or white"
    if layout.photometric == _PALETTE and max(tags.get(_COLOUR_MAP, (0,))) < 256:
        return "a palette of 8 bits, where the format has 16 bits"
    is_subsampled = layout.photometric == _YCBCR and _numbers(tags, _SUBSAMPLING, (2, 2)) != (1, 1)
    if is_subsampled and (layout.planar == 2 or not layout.is_compressed):
        return f"{layout}, subsampled"
    if layout.planar == 2 and not _reads_planes(layout):
        return str(layout)
    return "" if _is_known(layout) else str(layout)


def _reads_planes(layout: TiffLayout) -> bool:
    """Return whether Pillow joins the planes of this layout; measured, see the tests.

    Pillow's own decoder takes each letter of a mode for the layout of a plane, so it reads bytes.
    libtiff joins planes of all depths, but Pillow has no name for a plane of LA or Lab.
    """
    if layout.photometric in (_RGB, _CMYK):
        if layout.is_compressed:
            return len(layout.extra) <= 1
        is_plain = layout.extra == () or (layout.photometric, layout.extra) == (_RGB, (2,))
        return set(layout.bits) == {8} and is_plain
    if layout.is_compressed:
        return layout.photometric != _LAB and not layout.extra
    return layout.photometric in (_GREY, _PALETTE) and layout.bits == (8,)


def _is_known(layout: TiffLayout) -> bool:
    """Return whether Pillow has a decoder for the samples; its key leaves out the compression."""
    if layout.compression not in COMPRESSION_INFO:
        return False
    n_colours = _N_COLOURS.get(layout.photometric, 1)
    if layout.compression == _JPEG and len(layout.bits) == n_colours and set(layout.bits) == {8}:
        return True
    key = (
        b"II" if layout.order == "little" else b"MM",
        layout.photometric,
        (layout.sample_format,),
        layout.fill_order,
        layout.bits,
        layout.extra,
    )
    return key in OPEN_INFO
