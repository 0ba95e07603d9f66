"""The Python API on a real state folder: the same results as the command line's."""

import io
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_challenger import draw_photos
from tiny_train import NAME, SETTINGS, last_run, output

import regraft
from regraft import registry
from regraft.core.config import load_config
from regraft.core.errors import DataError, UnusablePhoto

pytestmark = pytest.mark.pipeline


@pytest.fixture
def root(shared_world) -> Path:
    return shared_world.folder / "state"


@pytest.fixture
def model(root):
    return regraft.load(f"{NAME}@champion", state=root)


@pytest.fixture
def test_photos():
    """The rows of the report's test photos."""
    report = output(last_run(), "evaluate")
    return report, report.predictions[: report.n]


def test_a_loaded_model_predicts_as_the_report(model, test_photos):
    report, photos = test_photos
    table = model.predict(list(photos.path))
    probs = photos[[f"prob:{name}" for name in report.classes]].to_numpy(float)
    assert model.classes == report.classes == model.card.classes
    assert model.predict_proba(list(photos.path)) == pytest.approx(probs, abs=1e-5)
    assert list(table.label) == list(photos.predicted)


def test_every_kind_of_image_gives_the_same_prediction(model, test_photos):
    path = Path(test_photos[1].path.iloc[0])
    image = Image.open(path).convert("RGB")
    images = [path, str(path), path.read_bytes(), image, np.asarray(image)]
    rows = model.predict_proba(images)
    assert rows.shape == (5, len(model.classes))
    assert rows == pytest.approx(np.repeat(rows[:1], 5, axis=0))
    assert model.predict_proba(image) == pytest.approx(rows[:1])  # one image alone is a row too
    assert model.embed(images).shape == (5, model.card.backbone.embedding_dim)
    assert model.predict([]).empty


@pytest.mark.parametrize("image", [b"no image", 3, np.zeros((4, 4, 3)), "no such file.png"])
def test_an_image_that_cannot_be_read_is_named_by_its_position(model, image):
    grey = Image.new("L", (32, 32), 128)
    with pytest.raises(UnusablePhoto, match="image 1: "):
        model.predict([grey, image])


def test_predict_is_the_command_s_table(root, test_photos):
    paths = list(test_photos[1].path)
    table = regraft.predict(paths, state=root)
    assert list(table.path) == paths
    assert list(table.label) == list(test_photos[1].predicted)
    assert set(table.model) == {f"{NAME}/1"}
    assert len(regraft.predict(Path(paths[0]), state=root)) == 1


def test_evaluate_counts_what_the_model_was_trained_on(shared_world, root, test_photos):
    report, photos = test_photos
    everything = regraft.evaluate(shared_world.photos, state=root)
    assert everything.model == f"{NAME}/1"
    assert everything.n == len(everything.predictions) > report.n
    assert everything.n_trained_on == everything.n - report.n
    known = everything.predictions.set_index("path").loc[photos.path]
    correct = known[[f"prob:{name}" for name in report.classes]].to_numpy().argmax(axis=1)
    labels = np.array(report.classes)[correct]
    assert (labels == known.true_label).mean() == pytest.approx(report.accuracy.value)
    assert cells(everything)[1] == f"{NAME}/1"


def test_evaluate_refuses_labels_that_the_model_does_not_have(root, tmp_path):
    image = io.BytesIO()
    Image.new("RGB", (40, 40), (200, 30, 30)).save(image, "PNG")
    for label in ("unheard of", "unseen"):
        (tmp_path / label).mkdir()
        (tmp_path / label / "0.png").write_bytes(image.getvalue())
    with pytest.raises(DataError, match="unheard of"):
        regraft.evaluate(tmp_path, state=root)


def test_watch_and_promote_answer_with_their_records(shared_world, root, tmp_path):
    draw_photos(tmp_path, 30, seed=99)
    watched = regraft.watch(tmp_path, state=root)
    assert watched.record.n_photos == watched.report.n_photos > 0
    assert Path(watched.record.page).is_file()
    assert cells(watched)[1] == f"{NAME}/1"
    verdict = regraft.promote(f"{NAME}/1", dry_run=True, state=root)
    assert verdict.challenger == 1
    assert registry.get_aliases(shared_world.tracking, NAME)["champion"] == 1


def test_train_and_retrain_are_the_commands(world):
    config = load_config(None, (f"backbone.source=file:{world.weights}", *SETTINGS))
    state = world.folder / "state"
    trained = regraft.train(
        world.photos, config=config, name=NAME, state=state, freeze={"policy": "probe"}
    )
    run = last_run()
    assert trained.version == output(run, "register")
    assert trained.verdict == output(run, "promote")
    assert trained.accuracy == output(run, "evaluate").accuracy.value
    assert trained.reference == f"{NAME}/{trained.version.version}"
    assert {stage.name for stage in trained.stages} == set(run.steps)
    assert cells(trained)[1] == trained.reference
    retrained = regraft.retrain(world.photos, name=NAME, state=state)
    assert (retrained.outcome, retrained.model) == ("skip", None)
    assert cells(retrained)[1] == NAME


def cells(result) -> list[str]:
    """The texts of the first table that a notebook shows for a result."""
    texts = []

    class Cells(HTMLParser):
        def handle_data(self, data):
            texts.append(data)

    Cells().feed(result._repr_html_())
    return texts
