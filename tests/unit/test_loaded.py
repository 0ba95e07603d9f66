"""Promises of one decoder: a file gives the same pixels to whoever opens it."""

import base64
import io
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mlflow.exceptions import MlflowException
from PIL import Image, ImageOps
from test_ingest_formats import HEIC
from test_ingest_layouts import PNG_GREY, chunk, ramps, write_bmp, write_png
from tiff_file import FLOAT, GREY, GREY_FALLS, Layout, write_tiff
from tiny import classifier_of, photo, write_weights

from regraft.core.errors import UnusablePhoto
from regraft.data.ingest import read_photo
from regraft.data.ingest.read_policy import ReadPolicy
from regraft.evaluation.predict import predict
from regraft.model.pixels import least_side, preprocess
from regraft.operations.loaded import LoadedModel
from regraft.registry import package, served

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    return classifier_of(write_weights(tmp_path_factory.mktemp("w") / "w.safetensors"))


@pytest.fixture(scope="module")
def model(classifier):
    return LoadedModel(classifier, "pets/1")


def turned_jpeg():
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    photo(1, (64, 48)).save(buffer, "JPEG", exif=exif)
    return buffer.getvalue()


def files():
    grey = np.round(65535 * ramps(1)).astype(int)
    tag = chunk(b"tRNS", b"\x00\x00")
    return {
        "turned.jpg": turned_jpeg(),
        "falls.tif": write_tiff(grey, Layout(GREY_FALLS, 16)),
        "float.tif": write_tiff(ramps(1), Layout(GREY, 32, FLOAT, order=">", compressed=True)),
        "zero alpha.bmp": write_bmp(np.round(255 * ramps(3)).astype(int), 0),
        "transparent.png": write_png(grey, 16, PNG_GREY, tag),
    }


@pytest.mark.parametrize("name", files())
def test_a_served_model_a_loaded_model_and_predict_see_the_same_pixels(
    tmp_path, classifier, model, name
):
    data, path = files()[name], tmp_path / name
    path.write_bytes(data)
    preprocessing = classifier.card.backbone.preprocessing
    expected = preprocess(read_photo(str(path), at_least=least_side(preprocessing)), preprocessing)
    cell = base64.b64encode(data).decode()
    assert torch.equal(served._pixels(cell, 0, classifier.card, ReadPolicy()), expected)
    answers = [*model.predict([data, str(path)]).confidence]
    answers += [*predict(classifier, [str(path)]).confidence]
    np.testing.assert_allclose(answers, answers[0], atol=1e-6)


def test_only_the_decoder_opens_image_files():
    """One place more would read the same file in another way."""
    used = {
        str(path.relative_to(ROOT / "regraft"))
        for path in (ROOT / "regraft").rglob("*.py")
        if re.search(
            r"Image\.open\(|ImagePlugin|imread|pillow_heif import", path.read_text("utf-8")
        )
    }
    decoder = {f"data/ingest/{name}.py" for name in ("decode", "png", "tiff")}
    assert used == {*decoder, "model/embed/perturbations.py"}  # which reads a JPEG of its own


# what a caller of a loaded model may give


def test_a_pil_image_is_turned_upright_as_its_file_is(model):
    data = turned_jpeg()
    opened = Image.open(io.BytesIO(data))
    upright = Image.fromarray(np.asarray(opened.transpose(Image.Transpose.ROTATE_270)))
    for image in (data, opened, opened.convert("RGB"), ImageOps.exif_transpose(opened)):
        np.testing.assert_allclose(model.embed(image), model.embed(upright), atol=1e-5)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "I", "F", "CMYK", "YCbCr"])
def test_a_pil_image_of_any_mode_is_read_as_the_photo_that_it_shows(model, mode):
    image = photo(2, (64, 48)).convert(mode)
    expected = image.convert("RGB")
    if mode in ("I", "F"):  # of no unit: from the minimum to the maximum
        values = np.asarray(image).astype(float)
        values = 255 * (values - values.min()) / (values.max() - values.min())
        expected = Image.fromarray(np.rint(values).astype(np.uint8)).convert("RGB")
    confidences = model.predict([image, expected]).confidence
    assert confidences[0] == pytest.approx(confidences[1], abs=1e-5)


def test_a_pil_image_of_a_mode_without_a_file_is_refused(model):
    with pytest.raises(UnusablePhoto, match=r"image 0: .*\bHSV\b"):
        model.predict(photo(2).convert("HSV"))


# a server


def test_a_request_with_a_format_that_is_not_read_is_answered_with_its_name(
    classifier, monkeypatch
):
    decoder = sys.modules["regraft.data.ingest.decode"]  # the package has a function of this name
    monkeypatch.setattr(decoder, "reads_heic", lambda: False)
    text = base64.b64encode(HEIC).decode()
    for cell in (HEIC, text, f"data:image/heic;base64,{text}"):
        with pytest.raises(MlflowException, match=r"Image 0: HEIC is not read: pip install"):
            served._pixels(cell, 0, classifier.card, ReadPolicy())


@pytest.mark.parametrize("is_installed", [False, True])
def test_a_server_needs_pillow_heif_only_where_heic_was_read(classifier, monkeypatch, is_installed):
    monkeypatch.setattr(package, "reads_heic", lambda: is_installed)
    monkeypatch.setattr("importlib.metadata.version", lambda name: "1.0")
    names = {
        requirement.partition("==")[0] for requirement in package.requirements(classifier.card)
    }
    assert ("pillow-heif" in names) == is_installed
