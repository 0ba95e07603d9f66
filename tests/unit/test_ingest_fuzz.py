"""The promise of decode for damaged files: pixels or a reason, within memory and time."""

import io
import resource
import time
import warnings

import numpy as np
import pytest
from PIL import Image
from test_ingest_layouts import PNG_RGB, bomb, chunk, ramps, write_bmp, write_png
from tiff_file import CMYK, FLOAT, GREY, GREY_FALLS, PALETTE, RGB, YCBCR, Layout, write_tiff

from regraft.core.config import IngestConfig
from regraft.core.errors import UnusablePhoto
from regraft.data.ingest import decode, ingest
from regraft.data.ingest.formats import format_of, reads_heic

N_FILES = 2000
MAX_PIXELS = 10**6
MAX_SECONDS = 5.0  # of one file, on a machine that does other things; measured 0.1 s
MAX_MEGABYTES = 400  # of all files together; a photo of MAX_PIXELS has 4 MB
REASONS = {"", "truncated", "unreadable", "too many pixels", "unsupported layout", "empty file"}


def seeds():
    """Small valid files of every format that is read, in several layouts."""
    rgb = Image.fromarray(np.round(255 * ramps(3)).astype(np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    frames = {"save_all": True, "append_images": [rgb.rotate(90)]}
    for mode, kind, options in (
        ("RGB", "JPEG", {"exif": exif}),
        ("RGB", "JPEG", {"progressive": True}),
        ("CMYK", "JPEG", {}),
        ("RGB", "MPO", frames),
        ("RGB", "PNG", {"exif": exif}),
        ("P", "PNG", {"transparency": 3}),
        ("RGB", "PNG", frames),
        ("RGB", "WEBP", {"exif": exif}),
        ("RGBA", "WEBP", {"lossless": True}),
        ("RGB", "WEBP", frames),
        ("P", "GIF", {}),
        ("P", "GIF", {**frames, "append_images": [rgb.rotate(90).convert("P")]}),
        ("P", "BMP", {}),
        ("RGB", "TIFF", {"compression": "jpeg"}),
        ("RGB", "TIFF", {"compression": "tiff_lzw", "exif": exif}),
        ("1", "TIFF", {"compression": "group4"}),
        ("RGB", "TIFF", {"big_tiff": True}),
        ("RGB", "AVIF", {"exif": exif.tobytes()}),
        ("RGBA", "AVIF", {}),
        ("RGB", "JPEG2000", {}),
        ("L", "JPEG2000", {"no_jp2": True}),
    ):
        buffer = io.BytesIO()
        rgb.convert(mode).save(buffer, kind, **options)
        yield buffer.getvalue()
    yield write_bmp(np.asarray(rgb).astype(int), 128)
    texts = (chunk(b"zTXt", b"Comment\0\0" + bomb()), chunk(b"iCCP", b"ICC\0\0" + bomb()))
    yield write_png(np.asarray(rgb).astype(int), 8, PNG_RGB, *texts)
    for layout, n in (
        (Layout(GREY_FALLS, 16), 1),
        (Layout(GREY, 12), 1),
        (Layout(GREY, 32, FLOAT, order=">", compressed=True), 1),
        (Layout(RGB, 8, planar=2, tiled=True), 3),
        (Layout(RGB, 16, extra=(1,), compressed=True), 4),
        (Layout(PALETTE, 8, tags=((320, "H", tuple(range(0, 65536, 256)) * 3),)), 1),
        (Layout(CMYK, 8), 4),
        (Layout(YCBCR, 8, subsampling=(1, 1)), 3),
    ):
        yield write_tiff(np.round(200 * ramps(n)).astype(int), layout)
    if reads_heic():
        import pillow_heif

        buffer = io.BytesIO()
        pillow_heif.from_pillow(rgb.resize((64, 64))).save(buffer)
        yield buffer.getvalue()


def mutated(data, others, rng):
    """The file with flipped bits, cut, with a piece of another file, or with other numbers."""
    data = bytearray(data)
    match rng.integers(0, 5):
        case 0:
            for _ in range(rng.integers(1, 20)):
                data[rng.integers(0, len(data))] ^= 1 << rng.integers(0, 8)
        case 1:
            del data[rng.integers(0, len(data)) :]
        case 2:
            other = others[rng.integers(0, len(others))]
            at, start = rng.integers(0, len(data)), rng.integers(0, len(other))
            data[at : at + rng.integers(1, 200)] = other[start : start + rng.integers(1, 200)]
        case 3:
            _overwrite_number(data, rng.integers(0, min(len(data), 160)), rng)
        case 4:  # where TIFF has its directory, and boxes and chunks their ends
            _overwrite_number(data, rng.integers(max(0, len(data) - 400), len(data)), rng)
    return bytes(data)


def _overwrite_number(data, at, rng):
    size = int(rng.choice([1, 2, 4]))
    extremes = (0, 1, 2, 255, 2**15, 2**16 - 1, 2**24, 2**31 - 1, 2**31, 2**32 - 1)
    number = int(rng.choice(extremes)) % 2 ** (8 * size)
    data[at : at + size] = number.to_bytes(size, "little" if rng.random() < 0.5 else "big")


def test_the_seeds_cover_every_format_and_are_valid():
    names = {format_of(data).name for data in seeds()}
    expected = {"JPEG", "PNG", "WebP", "GIF", "BMP", "TIFF", "AVIF", "JPEG 2000"}
    assert names == (expected | {"HEIC"} if reads_heic() else expected)
    for data in seeds():
        decode(data, MAX_PIXELS)


@pytest.mark.slow
def test_a_damaged_file_ends_in_pixels_or_a_reason_within_memory_and_time(tmp_path):
    rng, files = np.random.default_rng(20), list(seeds())
    n_unusable, before = 0, _peak_megabytes()
    for number in range(N_FILES):
        data = mutated(files[number % len(files)], files, rng)
        path = tmp_path / ("a" if number % 2 else "b") / f"{number}.jpg"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
        start = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # as ingest does
            n_unusable += _is_unusable(data)
        assert time.perf_counter() - start < MAX_SECONDS, number
    assert _peak_megabytes() - before < MAX_MEGABYTES
    assert 0.2 * N_FILES < n_unusable < 0.9 * N_FILES
    config = IngestConfig(
        photos=str(tmp_path), max_pixels=MAX_PIXELS, max_quarantine_fraction=1.0, n_workers=2
    )
    table = ingest(config)
    clashing = (table.quarantine["reason"] == "clashing labels").sum()
    assert len(table.frame) + len(table.quarantine) == N_FILES
    assert (table.n_ignored, table.n_repeated) == (0, 0)
    assert len(table.quarantine) - clashing == n_unusable


def _is_unusable(data):
    reason = _reason(data)
    assert reason in REASONS or reason.endswith(" is not read"), reason
    return bool(reason)


def _reason(data):
    """Why the file is unusable; "" = it is a photo."""
    try:
        photo = decode(data, MAX_PIXELS)
    except UnusablePhoto as error:
        return error.reason
    assert photo.mode == "RGB"
    assert photo.width * photo.height <= MAX_PIXELS
    return ""


def _peak_megabytes():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
