"""Promises about pixels: a file is read as it is meant, by the standard and by a second decoder.

A layout that cannot be read so is refused by its name. The files are written by hand, because
Pillow would not write most of them.
"""

import io
import itertools
import re
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image
from tiff_file import (
    CMYK,
    FLOAT,
    GREY,
    GREY_FALLS,
    RGB,
    SIGNED,
    UNSIGNED,
    YCBCR,
    Layout,
    write_tiff,
)

from regraft.core.errors import UnusablePhoto
from regraft.data.ingest import decode

SIDE = 20  # two strips, and tiles that stick out
N_COLOURS = {GREY_FALLS: 1, GREY: 1, RGB: 3, CMYK: 4}
UNSPECIFIED, PREMULTIPLIED, STRAIGHT = 0, 1, 2  # ExtraSamples


def ramps(n):
    """(SIDE, SIDE, n) in [0, 1]: ramps in several directions, with black and white in each."""
    y, x = np.mgrid[:SIDE, :SIDE] / (SIDE - 1)
    return np.stack([x, y, 1 - x, (x + y) / 2, 1 - y, x * y][:n], axis=-1)


def samples_of(layout):
    """The samples of a photo in the range of the layout."""
    values = ramps(N_COLOURS[layout.photometric] + len(layout.extra))
    if layout.extra[:1] == (PREMULTIPLIED,):
        n = N_COLOURS[layout.photometric]
        values[..., :n] *= values[..., n : n + 1]
    if layout.sample_format == FLOAT:
        return 3 * values - 1
    full = 2**layout.bits - 1
    least = 2 ** (layout.bits - 1) if layout.sample_format == SIGNED else 0
    return np.round(values * full).astype(np.int64) - least


def meant(samples, layout):
    """(SIDE, SIDE, 3) in [0, 255]: what the TIFF specification says that the samples mean."""
    values = samples.astype(float)
    if layout.sample_format != UNSIGNED or layout.bits > 16:
        values = (values - values.min()) / (values.max() - values.min())
    else:
        values /= 2**layout.bits - 1
    n = N_COLOURS[layout.photometric]
    colours = values[..., :n]
    if layout.photometric == GREY_FALLS:
        colours = 1 - colours
    if layout.photometric == CMYK:
        colours = (1 - values[..., :3]) * (1 - values[..., 3:4])
    if layout.extra[:1] in ((PREMULTIPLIED,), (STRAIGHT,)):
        alpha = values[..., n : n + 1]
        is_premultiplied = layout.extra[0] == PREMULTIPLIED
        colours = colours * (1 if is_premultiplied else alpha) + 1 - alpha  # on white
    return 255 * np.broadcast_to(colours, (SIDE, SIDE, 3))


def pixels_of(data):
    return np.asarray(decode(data, SIDE * SIDE)).astype(float)


def pixels_or_reason(data):
    try:
        return pixels_of(data)
    except UnusablePhoto as error:
        return str(error)


def second_opinion(data):
    """The RGB pixels according to OpenCV, without regard to alpha; None = not read."""
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    return None if pixels is None else pixels[..., ::-1].astype(float)


def assert_opencv_agrees(data, pixels, layout):
    other = second_opinion(data)
    if other is not None and layout.sample_format == UNSIGNED:
        assert np.abs(pixels - other).max() < 3, layout


def layouts(photometric):
    extras = ((), (0,), (1,), (2,), (2, 0))
    kinds = [(bits, UNSIGNED) for bits in (1, 4, 8, 12, 16, 32)]
    kinds += [(8, SIGNED), (16, SIGNED), (32, SIGNED), (32, FLOAT), (64, FLOAT)]
    for (bits, kind), planar, extra, compressed, order, tiled in itertools.product(
        kinds, (1, 2), extras, (False, True), "<>", (False, True)
    ):
        yield Layout(photometric, bits, kind, planar, extra, compressed, order, tiled=tiled)


# How many layouts of layouts() are read: of 880 each. A change of Pillow may change them.
N_READ = {GREY_FALLS: 54, GREY: 140, RGB: 112, CMYK: 40}


@pytest.mark.parametrize("photometric", N_READ)
def test_a_tiff_of_any_layout_is_read_as_it_is_meant_or_refused_by_its_name(photometric):
    n_read = 0
    for layout in layouts(photometric):
        samples = samples_of(layout)
        data = write_tiff(samples, layout)
        pixels = pixels_or_reason(data)
        if isinstance(pixels, str):
            assert re.match(rf"unsupported layout: TIFF .* of {layout.bits} bits", pixels), layout
            continue
        n_read += 1
        assert np.abs(pixels - meant(samples, layout)).max() < 3, layout
        # OpenCV 5.0.0 has wrong pixels in tiles of 16 bits that stick out of the photo.
        if not layout.extra and not layout.tiled and layout.bits <= 16:
            assert_opencv_agrees(data, pixels, layout)
    assert n_read == N_READ[photometric]


@pytest.mark.parametrize(("bits", "order"), [(8, "<"), (8, ">"), (16, "<"), (16, ">"), (32, "<")])
def test_the_predictor_of_a_compressed_tiff_is_undone(bits, order):
    layout = Layout(GREY, bits, compressed=True, order=order, predictor=2)
    samples = samples_of(layout)
    assert np.abs(pixels_of(write_tiff(samples, layout)) - meant(samples, layout)).max() < 2


def test_unsigned_32_bits_reach_beyond_the_signed_ones():
    samples = np.array([0, 2**31 - 1, 2**31, 2**32 - 1]).reshape(1, 4, 1)
    pixels = pixels_of(write_tiff(samples, Layout(GREY, 32)))
    assert pixels[0, :, 0].tolist() == [0, 127, 128, 255]


def refused(data):
    with pytest.raises(UnusablePhoto) as caught:
        decode(data, SIDE * SIDE)
    return str(caught.value)


BYTES = Layout(RGB, 8)


@pytest.mark.parametrize(
    ("layout", "words"),
    [
        (BYTES._replace(photometric=None), "no PhotometricInterpretation"),
        (BYTES._replace(photometric=None, compressed=True), "no PhotometricInterpretation"),
        (BYTES._replace(photometric=9), "ICCLab"),
        (BYTES._replace(photometric=YCBCR), "YCbCr.* subsampled"),
        (BYTES._replace(photometric=YCBCR, planar=2), "YCbCr.* subsampled"),
        (BYTES._replace(photometric=8, planar=2), "CIELab.* a plane for each sample"),
        (BYTES._replace(bits=16, planar=2), "RGB.* of 16 bits.* a plane for each sample"),
        (BYTES._replace(tags=((259, "H", (34712,)),)), "compression 34712"),
        (BYTES._replace(tags=((339, "H", (1, 1, 3)),)), "SampleFormat -1"),
    ],
)
def test_a_layout_whose_pixels_would_be_wrong_is_named(layout, words):
    samples = np.round(255 * ramps(3)).astype(int)
    text = refused(write_tiff(samples, layout))
    assert text.startswith("unsupported layout: TIFF with "), text
    assert re.search(words, text)


def test_a_palette_of_eight_bits_is_named():
    palette = Layout(3, 8, tags=((320, "H", tuple(range(256)) * 3),))
    samples = np.round(255 * ramps(1)).astype(int)
    assert "palette of 8 bits" in refused(write_tiff(samples, palette))
    wide = palette._replace(tags=((320, "H", tuple(257 * level for level in range(256)) * 3),))
    assert np.abs(pixels_of(write_tiff(samples, wide)) - samples).max() == 0


@pytest.mark.parametrize("compressed", [False, True])
def test_ycbcr_and_lab_are_converted(compressed):
    grey = np.round(255 * ramps(1)).astype(int)
    ycbcr = np.concatenate([grey, np.full_like(grey, 128), np.full_like(grey, 128)], axis=2)
    layout = Layout(YCBCR, 8, subsampling=(1, 1), compressed=compressed)
    assert np.abs(pixels_of(write_tiff(ycbcr, layout)) - grey).max() < 2
    lab = np.concatenate([grey, np.zeros_like(grey), np.zeros_like(grey)], axis=2)
    pixels = pixels_of(write_tiff(lab, Layout(8, 8, compressed=compressed)))
    expected = cv2.cvtColor((lab / [2.55, 1, 1]).astype(np.float32), cv2.COLOR_Lab2RGB)
    assert np.abs(pixels - 255 * expected).max() < 3


@pytest.mark.parametrize(
    "tags",
    [
        ((254, "I", (1,)), (330, "I", (8,))),  # a preview, the sensor's data in a sub-directory
        ((262, "H", (32803,)),),
        ((262, "H", (34892,)),),
        ((50706, "B", (1, 4, 0, 0)),),
    ],
)
def test_the_preview_in_a_raw_file_is_not_taken_for_the_photo(tags):
    samples = np.round(255 * ramps(3)).astype(int)
    assert refused(write_tiff(samples, BYTES._replace(tags=tags))).startswith("RAW is not read: ")


# PNG

PNG_GREY, PNG_RGB, PNG_PALETTE, PNG_GREY_ALPHA, PNG_RGBA = 0, 2, 3, 4, 6
PNG_SAMPLES = {PNG_GREY: 1, PNG_RGB: 3, PNG_PALETTE: 1, PNG_GREY_ALPHA: 2, PNG_RGBA: 4}
SIGNATURE = b"\x89PNG\r\n\x1a\n"


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def write_png(samples, bits, colour_type, *before, after=()):
    """The PNG of integers (H, W, S), with chunks before and after its pixels."""
    height, width, _ = samples.shape
    spread = (samples.reshape(height, -1, 1) >> np.arange(bits - 1, -1, -1)) & 1
    packed = np.packbits(spread.reshape(height, -1).astype(np.uint8), axis=1)
    rows = b"".join(b"\0" + row.tobytes() for row in packed)
    header = struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, 0)
    chunks = [chunk(b"IHDR", header), *before, chunk(b"IDAT", zlib.compress(rows)), *after]
    return SIGNATURE + b"".join([*chunks, chunk(b"IEND", b"")])


PNG_LAYOUTS = [
    *[(PNG_GREY, bits) for bits in (1, 2, 4, 8, 16)],
    *[(PNG_PALETTE, bits) for bits in (1, 2, 4, 8)],
    *[(kind, bits) for kind in (PNG_RGB, PNG_GREY_ALPHA, PNG_RGBA) for bits in (8, 16)],
]


@pytest.mark.parametrize(("colour_type", "bits"), PNG_LAYOUTS)
def test_a_png_of_any_layout_is_read_as_it_is_meant(colour_type, bits):
    full = 2**bits - 1
    samples = np.round(full * ramps(PNG_SAMPLES[colour_type])).astype(int)
    before = []
    values = samples / full
    if colour_type == PNG_PALETTE:
        palette = np.random.default_rng(0).integers(0, 256, (full + 1, 3), dtype=np.uint8)
        before = [chunk(b"PLTE", palette.tobytes())]
        values = palette[samples[..., 0]] / 255
    if colour_type in (PNG_GREY_ALPHA, PNG_RGBA):
        alpha = values[..., -1:]
        values = values[..., :-1] * alpha + 1 - alpha
    data = write_png(samples, bits, colour_type, *before)
    pixels = pixels_of(data)
    assert np.abs(pixels - 255 * values).max() < 3
    if colour_type in (PNG_GREY, PNG_RGB, PNG_PALETTE):
        assert np.abs(pixels - second_opinion(data)).max() < 3


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_the_transparent_level_of_a_grey_png_is_white_and_no_other_is(bits):
    levels = np.arange(min(2**bits, 4)).reshape(1, -1, 1) + (2**bits // 4 if bits > 2 else 0)
    plain = pixels_of(write_png(levels, bits, PNG_GREY))
    for at, level in enumerate(levels[0, :, 0]):
        tag = chunk(b"tRNS", struct.pack(">H", level))
        pixels = pixels_of(write_png(levels, bits, PNG_GREY, tag))
        plain_but_one = plain.copy()
        plain_but_one[0, at] = 255
        assert np.array_equal(pixels, plain_but_one)


def test_the_transparent_colour_of_an_rgb_png_is_white_or_the_layout_is_named():
    samples = np.array([[[1, 2, 3], [4, 5, 6]]])
    tag = chunk(b"tRNS", struct.pack(">3H", 1, 2, 3))
    pixels = pixels_of(write_png(samples, 8, PNG_RGB, tag))
    assert pixels.tolist() == [[[255, 255, 255], [4, 5, 6]]]
    text = refused(write_png(samples, 16, PNG_RGB, tag))
    assert text.startswith("unsupported layout: PNG with 16-bit RGB and a transparent colour")


def bomb(n=3 * 2**20):
    return zlib.compress(bytes(n), 9)


@pytest.mark.parametrize(
    "large",
    [
        chunk(b"tEXt", b"Comment\0" + b"x" * (2 * 2**20)),
        chunk(b"zTXt", b"Comment\0\0" + bomb()),
        chunk(b"iTXt", b"Comment\0\1\0\0\0" + bomb()),
        chunk(b"zTXt", b"Raw profile type exif\0\0" + bomb()),
        chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + bomb()),
        chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + b"x" * (2 * 2**20)),
        chunk(b"iCCP", b"ICC\0\0" + bomb()),
        chunk(b"zTXt", b"Comment\0\0" + bomb()) * 100,
    ],
    ids=["tEXt", "zTXt", "iTXt", "exif", "xmp", "plain xmp", "iCCP", "many"],
)
@pytest.mark.parametrize("is_before", [True, False])
def test_a_png_is_read_however_large_its_texts_and_its_profile_are(large, is_before):
    samples = np.round(255 * ramps(3)).astype(int)
    before, after = ((large,), ()) if is_before else ((), (large,))
    data = write_png(samples, 8, PNG_RGB, *before, after=after)
    assert np.array_equal(pixels_of(data), samples)


@pytest.mark.parametrize("compressed", [False, True])
def test_the_orientation_in_a_text_of_a_png_is_applied(compressed):
    exif = Image.Exif()
    exif[0x0112] = 6
    raw = b"Exif\0\0" + exif.tobytes().removeprefix(b"Exif\0\0")
    text = b"\nexif\n%8d\n%s\n" % (len(raw), raw.hex().encode())
    keyword = b"Raw profile type exif\0"
    tag = chunk(b"tEXt", keyword + text)
    if compressed:
        tag = chunk(b"zTXt", keyword + b"\0" + zlib.compress(text))
    wide = np.round(255 * ramps(3)[:4]).astype(int)
    comment = chunk(b"tEXt", b"Comment\0a drop of ink")
    data = write_png(wide, 8, PNG_RGB, comment, tag)
    assert pixels_of(data).shape == (SIDE, 4, 3)


# BMP


def write_bmp(samples, alpha, version=4):
    """A BMP of RGB (H, W, 3) in 32 bits with a field for alpha, as Windows programs write it."""
    height, width, _ = samples.shape
    blue_first = np.concatenate([samples[..., ::-1], np.full_like(samples[..., :1], 0)], axis=2)
    blue_first[..., 3] = alpha
    pixels = blue_first[::-1].astype(np.uint8).tobytes()
    masks = struct.pack("<4I", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    size = {4: 108, 5: 124}[version]
    info = struct.pack("<IiiHHIIiiII", size, width, height, 1, 32, 3, len(pixels), 0, 0, 0, 0)
    header = (info + masks).ljust(size, b"\0")
    start = 14 + size
    return struct.pack("<2sIHHI", b"BM", start + len(pixels), 0, 0, start) + header + pixels


@pytest.mark.parametrize("version", [4, 5])
def test_a_bmp_whose_alpha_is_zero_everywhere_has_no_alpha(version):
    samples = np.round(255 * ramps(3)).astype(int)
    data = write_bmp(samples, 0, version)
    assert np.array_equal(pixels_of(data), samples)
    assert np.array_equal(pixels_of(data), second_opinion(data))


def test_the_alpha_of_a_bmp_that_has_some_is_laid_on_white():
    samples = np.round(255 * ramps(3)).astype(int)
    alpha = np.zeros((SIDE, SIDE), int)
    alpha[:, 10:] = 255
    pixels = pixels_of(write_bmp(samples, alpha))
    assert (pixels[:, :10] == 255).all()
    assert np.array_equal(pixels[:, 10:], samples[:, 10:])


# all other formats, as Pillow writes them


def saved(mode, kind, **options):
    rgb = Image.fromarray(np.round(255 * ramps(3)).astype(np.uint8))
    rgb = rgb.resize((48, 32), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    rgb.convert(mode).save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("mode", "kind", "options"),
    [
        ("L", "JPEG", {}),
        ("RGB", "JPEG", {}),
        ("RGB", "JPEG", {"progressive": True, "subsampling": 2}),
        ("CMYK", "JPEG", {}),
        ("RGB", "WEBP", {"quality": 90}),
        ("RGB", "WEBP", {"lossless": True}),
        ("RGB", "AVIF", {"quality": 90}),
        ("L", "AVIF", {"quality": 90}),
        ("RGB", "JPEG2000", {}),
        ("L", "JPEG2000", {}),
        ("RGB", "JPEG2000", {"irreversible": True, "no_jp2": True}),
        ("P", "GIF", {}),
        ("1", "BMP", {}),
        ("L", "BMP", {}),
        ("P", "BMP", {}),
        ("RGB", "BMP", {}),
        ("RGB", "TIFF", {"compression": "jpeg"}),
        ("RGB", "TIFF", {"compression": "tiff_lzw"}),
        ("1", "TIFF", {"compression": "group4"}),
        ("RGB", "TIFF", {"compression": "packbits"}),
    ],
)
def test_a_second_decoder_sees_the_same_pixels(mode, kind, options):
    data = saved(mode, kind, **options)
    pixels = np.asarray(decode(data, 10_000)).astype(float)
    other = second_opinion(data)
    assert pixels.shape == other.shape
    assert np.abs(pixels - other).mean() < 1
    assert np.abs(pixels - other).max() < 12  # chroma is enlarged in several ways


@pytest.mark.parametrize("kind", ["AVIF", "JPEG2000", "WEBP"])
def test_transparency_of_newer_formats_is_laid_on_white(kind):
    image = Image.new("RGBA", (32, 32), (0, 0, 0, 0))
    image.paste((200, 30, 60, 255), (16, 0, 32, 32))
    buffer = io.BytesIO()
    image.save(buffer, kind, **({} if kind == "JPEG2000" else {"quality": 100}))
    photo = decode(buffer.getvalue(), 10_000)
    assert min(photo.getpixel((4, 16))) > 250
    assert np.abs(np.subtract(photo.getpixel((28, 16)), (200, 30, 60))).max() < 6


def test_sixteen_bit_grey_of_jpeg_2000_is_divided_by_257():
    levels = np.array([[0, 257 * 100, 65535] * 4] * 12, dtype=np.uint16)
    buffer = io.BytesIO()
    Image.fromarray(levels).save(buffer, "JPEG2000")
    assert np.asarray(decode(buffer.getvalue(), 1000))[0, :3, 0].tolist() == [0, 100, 255]


@pytest.mark.parametrize("kind", ["AVIF", "JPEG2000"])
@pytest.mark.parametrize("cut", [0.3, 0.6, 0.95])
def test_a_cut_file_of_a_newer_format_never_passes_as_a_photo(kind, cut):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, kind)
    data = buffer.getvalue()[: int(cut * len(buffer.getvalue()))]
    with pytest.raises(UnusablePhoto) as caught:
        decode(data, 10_000)
    assert caught.value.reason == "truncated"
