"""Promises of decode: bytes become an upright RGB photo, or an error with the reason."""

import io
import pickle
import struct
import zlib

import fsspec
import numpy as np
import pytest
from PIL import Image

from regraft.core.errors import UnusablePhoto
from regraft.data.ingest import decode, n_cores, read_photo
from regraft.data.ingest.decode import unpack

LIMIT = 10_000


def file_bytes(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def claiming(width, height):
    """A PNG with this size in its header, and the pixels of an 8 x 8 photo."""
    data = bytearray(file_bytes(Image.new("1", (8, 8))))
    data[16:24] = struct.pack(">II", width, height)  # IHDR: its fields, then the CRC of all of it
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    return bytes(data)


def noise(size=16, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def reason_of(data, max_pixels=LIMIT):
    with pytest.raises(UnusablePhoto) as caught:
        decode(data, max_pixels)
    return caught.value.reason


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "WEBP", "JPEG", "GIF", "MPO"])
def test_each_format_is_recognised_by_its_content(kind):
    options = {"lossless": True} if kind == "WEBP" else {}
    photo = decode(file_bytes(noise(), kind, **options), LIMIT)
    assert (photo.mode, photo.size) == ("RGB", (16, 16))
    if kind in ("PNG", "BMP", "TIFF", "WEBP"):
        assert np.array_equal(np.asarray(photo), np.asarray(noise()))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    upright = Image.fromarray(np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3) * 10)
    stored = {
        1: None,
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }[orientation]
    image = upright if stored is None else upright.transpose(stored)
    photo = decode(file_bytes(image, "PNG", exif=exif), LIMIT)
    assert np.array_equal(np.asarray(photo), np.asarray(upright))


def test_exif_that_cannot_be_read_is_no_orientation():
    photo = decode(file_bytes(noise(), "PNG", exif=b"Exif\x00\x00II*\x00\xff\xff\xff\xff"), LIMIT)
    assert photo.size == (16, 16)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_is_laid_on_white(mode):
    image = Image.new(mode, (2, 1), 0)
    image.putpixel((1, 0), (0,) * (len(mode) - 1) + (255,))
    photo = decode(file_bytes(image), LIMIT)
    assert [photo.getpixel((x, 0)) for x in (0, 1)] == [(255, 255, 255), (0, 0, 0)]


def test_a_transparent_palette_entry_is_white():
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putpixel((1, 0), 1)
    photo = decode(file_bytes(image, "PNG", transparency=b"\x00\xff"), LIMIT)
    assert [photo.getpixel((x, 0)) for x in (0, 1)] == [(255, 255, 255), (200, 100, 50)]


def test_sixteen_bit_grey_is_divided_by_257_whatever_the_photo_holds():
    grey = np.array([[0, 257, 257 * 100, 65535]], dtype=np.uint16)
    for kind in ("PNG", "TIFF"):
        photo = np.asarray(decode(file_bytes(Image.fromarray(grey), kind), LIMIT))
        assert photo[0, :, 0].tolist() == [0, 1, 100, 255]


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_thirty_two_bit_grey_is_stretched_from_its_minimum_to_its_maximum(dtype):
    image = Image.fromarray(np.array([[-5, 0, 5]], dtype=dtype))
    photo = np.asarray(decode(file_bytes(image, "TIFF"), LIMIT))
    assert photo[0].tolist() == [[0] * 3, [128] * 3, [255] * 3]


def test_grey_values_that_are_no_numbers_are_unreadable():
    image = Image.fromarray(np.array([[0.0, np.nan]], dtype=np.float32))
    assert reason_of(file_bytes(image, "TIFF")) == "unreadable"


@pytest.mark.parametrize("mode", ["1", "L", "CMYK"])
def test_other_modes_become_rgb(mode):
    white = Image.new("RGB", (4, 4), "white").convert(mode)
    photo = decode(file_bytes(white, "TIFF"), LIMIT)
    assert photo.mode == "RGB"
    assert photo.getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "TIFF"])
def test_of_several_frames_the_first_counts(kind):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    data = file_bytes(frames[0], kind, save_all=True, append_images=frames[1:])
    red, _, blue = decode(data, LIMIT).getpixel((4, 4))
    assert red > 200
    assert blue < 50


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "WEBP", "JPEG", "GIF"])
def test_a_file_cut_in_the_middle_never_passes_as_a_photo(kind):
    data = file_bytes(noise(32), kind)
    assert reason_of(data[: len(data) // 2]) in ("truncated", "unreadable")


@pytest.mark.parametrize("kind", ["PNG", "BMP", "WEBP", "JPEG"])
def test_a_cut_file_is_called_truncated(kind):
    data = file_bytes(noise(32), kind)
    assert reason_of(data[: len(data) // 2]) == "truncated"


def test_a_photo_over_the_limit_is_refused_before_its_pixels_are_unpacked():
    bomb = claiming(20_000, 20_000)
    with pytest.raises(
        UnusablePhoto, match=r"\b20000 x 20000\b.*\bingest\.max_pixels\b.*\b10000\b"
    ):
        decode(bomb, LIMIT)
    assert reason_of(bomb, 89_478_485) == "too many pixels"


def test_empty_files_pointers_and_texts_are_named_as_such():
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"
    assert reason_of(b"") == "empty file"
    assert reason_of(pointer) == "git-lfs pointer"
    assert reason_of(b"hello, I am no photo") == "unreadable"


def test_read_photo_reads_paths_and_urls_and_names_the_file_that_fails(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(file_bytes(noise()))
    fsspec.filesystem("memory").pipe_file("/decode/a.png", path.read_bytes())
    assert np.array_equal(read_photo(str(path)), read_photo("memory://decode/a.png"))
    with pytest.raises(UnusablePhoto, match=r"^missing: .*/b\.png\b"):
        read_photo(str(tmp_path / "b.png"))
    with pytest.raises(UnusablePhoto, match=r"^unreadable: IsADirectoryError\b"):
        read_photo(str(tmp_path))
    path.write_bytes(b"")
    with pytest.raises(UnusablePhoto, match=r"^empty file: .*/a\.png\b"):
        read_photo(str(path))
    with pytest.raises(UnusablePhoto, match=r"^unreadable: .* nosuch://a\b"):
        read_photo("nosuch://a")


def test_the_reason_survives_a_process_boundary():
    error = pickle.loads(pickle.dumps(UnusablePhoto("truncated", "at byte 7")))
    assert (error.reason, error.detail) == ("truncated", "at byte 7")


# at a reduced scale


def smooth(width, height, seed=0):
    """A photo with structure that is visible at 1/4 of its size."""
    return noise(8, seed).resize((width, height), Image.Resampling.BICUBIC)


@pytest.mark.parametrize("kind", ["JPEG", "MPO"])
@pytest.mark.parametrize(
    ("at_least", "size"),
    [(0, (160, 128)), (65, (160, 128)), (64, (80, 64)), (32, (40, 32)), (1, (20, 16))],
)
def test_the_shorter_side_stays_as_long_as_asked(kind, at_least, size):
    found = unpack(file_bytes(smooth(160, 128), kind), 160 * 128, at_least)
    assert (found.photo.size, found.width, found.height) == (size, 160, 128)


def test_a_reduced_photo_shows_what_the_whole_one_shows():
    data = file_bytes(smooth(256, 192), "JPEG", quality=95)
    whole, reduced = decode(data, 10**6), decode(data, 10**6, 48)
    expected = np.asarray(whole.resize(reduced.size, Image.Resampling.BOX), float)
    assert reduced.size == (64, 48)
    assert np.abs(np.asarray(reduced) - expected).mean() < 1


def test_a_scale_that_would_cut_a_pixel_is_not_used():
    assert decode(file_bytes(smooth(164, 128), "JPEG"), 10**6, 16).size == (41, 32)
    assert decode(file_bytes(smooth(161, 128), "JPEG"), 10**6, 16).size == (161, 128)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "WEBP", "GIF"])
def test_other_formats_have_their_full_scale(kind):
    found = unpack(file_bytes(noise(32), kind), LIMIT, 1)
    assert (found.photo.size, found.width, found.height) == ((32, 32), 32, 32)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_full_size_is_that_of_the_upright_photo(kind, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = file_bytes(smooth(64, 32), kind, exif=exif)
    found, upright = unpack(data, LIMIT, 8), decode(data, LIMIT)
    assert (found.width, found.height) == upright.size
    assert (found.photo.width > found.photo.height) == (upright.width > upright.height)
    assert upright.size == ((64, 32) if orientation < 5 else (32, 64))


def test_the_limit_is_judged_on_the_full_size():
    with pytest.raises(UnusablePhoto, match=r"\b160 x 128\b.*\bingest\.max_pixels\b.*\b20479\b"):
        decode(file_bytes(smooth(160, 128), "JPEG"), 160 * 128 - 1, 16)


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("cut", [0.1, 0.5, 0.9, 0.99])
def test_a_jpeg_that_was_cut_is_found_at_every_scale(progressive, cut):
    data = file_bytes(noise(256), "JPEG", progressive=progressive, quality=90)
    for at_least in (0, 128, 64, 32):
        with pytest.raises(UnusablePhoto, match="truncated"):
            decode(data[: int(cut * len(data))], 10**6, at_least)


def test_threads_are_as_many_as_the_cores_that_this_process_may_use(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {3, 5, 7}, raising=False)
    assert n_cores() == 3
    monkeypatch.delattr("os.sched_getaffinity")
    monkeypatch.setattr("os.cpu_count", lambda: None)
    assert n_cores() == 1
