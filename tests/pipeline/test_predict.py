"""What predictions promise: every photo has a row, the broken ones with a reason."""

import json
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from mlflow.pyfunc import load_model
from tiny_challenger import tracking_in, trained
from typer.testing import CliRunner

from regraft import registry
from regraft.cli import app
from regraft.core.config import (
    Config,
    EmbedConfig,
    EvaluateConfig,
    PredictConfig,
    RegistryConfig,
    TrackingConfig,
    TuneConfig,
)
from regraft.core.errors import ConfigError, ManifestError, NoPhotos
from regraft.core.state import environment, open_state, places
from regraft.evaluation.evaluate import evaluate
from regraft.evaluation.predict import (
    list_photos,
    max_pixels_of,
    predict,
    with_abstention,
    write_predictions,
)
from regraft.model.card import UNSURE
from regraft.model.embed import NO_STORE, logits, probabilities
from regraft.model.pixels import photos_of
from regraft.training.tune import fine_tune

pytestmark = pytest.mark.pipeline  # not for its stores, but for the training behind trained()


def classifier():
    made = trained()
    return made.challenger.classifier.with_card(temperature=2.0)


def photos() -> list[str]:
    return trained().splits.test.path.tolist()


def places_in(sources) -> list[str]:
    return [photo.place for photo in list_photos(sources)]


@pytest.fixture
def mixed(tmp_path) -> Path:
    """A folder with one good photo, three broken ones, and what is no photo at all."""
    good = Path(photos()[0]).read_bytes()
    folder = tmp_path / "mixed"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "good.png").write_bytes(good)
    (folder / "a.png").write_bytes(good[: len(good) // 2])
    (folder / "b.jpg").write_bytes(b"")
    (folder / "c.png").write_text("version https://git-lfs.github.com/spec/v1\n")
    (folder / ".hidden.png").write_bytes(good)
    (folder / "notes.txt").write_text("hello")
    (folder / "__MACOSX").mkdir()
    (folder / "__MACOSX" / "good.png").write_bytes(b"litter")
    return folder


def test_answers_are_those_of_the_evaluation():
    table = predict(classifier(), photos())
    expected = probabilities(
        logits(classifier(), photos_of(trained().splits.test), NO_STORE), 2.0
    ).numpy()
    assert table.path.tolist() == photos()
    assert np.allclose(table.filter(like="prob:").to_numpy(), expected, atol=1e-6)
    said = trained().report.predictions.set_index("path").predicted
    assert table.label.tolist() == said[photos()].tolist()
    assert (table.error == "").all()


@pytest.fixture
def store(tmp_path) -> EmbedConfig:
    return EmbedConfig(store_url=str(tmp_path / "embeddings"))


@pytest.fixture
def said(caplog):
    """What the store said of known and new photos, and what passed the network, in photos."""
    caplog.set_level("INFO", "regraft.embed")
    size = classifier().card.backbone.preprocessing.size
    passed = []

    def count(module, inputs, output):
        is_first = isinstance(module, torch.nn.Conv2d) and inputs[0].shape[1:] == (3, size, size)
        if is_first and inputs[0].any():  # zeros measure how wide a new network is
            passed.append(len(output))

    def since() -> tuple[str, int]:
        line, n_passed = "".join(caplog.messages[-1:]), sum(passed)
        passed.clear()
        return line, n_passed

    hook = torch.nn.modules.module.register_module_forward_hook(count)
    yield since
    hook.remove()


def test_what_was_predicted_once_passes_no_network_again(store, said):
    first = predict(classifier(), photos(), store=store)
    n = len(photos())
    assert said()[1] == n
    second = predict(classifier(), photos(), store=store)
    line, n_passed = said()
    assert n_passed == 0
    assert re.match(rf"embed: {n} .*: {n} \w+, 0 .*\bfloat32\b", line)
    pd.testing.assert_frame_equal(first, second, check_exact=True)
    pd.testing.assert_frame_equal(first, predict(classifier(), photos()))


def test_broken_photos_have_their_reason_with_a_store_too(mixed, store, said):
    plain = predict(classifier(), [str(mixed)])
    said()
    for n_new in (1, 0):
        table = predict(classifier(), [str(mixed)], store=store)
        assert said()[1] == n_new
        pd.testing.assert_frame_equal(table, plain)
    assert list(table.error.str.partition(":")[0]) == [
        *("truncated", "empty file", "git-lfs pointer", "")
    ]


def test_what_the_training_has_judged_passes_no_network_again(tmp_path, store, said):
    made = trained()
    pretrained, plan = classifier(), made.challenger.plan  # of the same backbone
    config = TuneConfig(epochs=0, precision="fp32", head_l2=(0.1,))
    challenger = fine_tune(pretrained, plan, made.splits, config, lambda record: None, store)
    evaluate(challenger, made.report.transfer, made.splits, EvaluateConfig(), store)
    assert said()[1] == len(made.splits.frame)
    table = predict(challenger.classifier, photos(), store=store)
    assert said()[1] == 0
    assert (table.error == "").all()


def test_columns_name_the_classes_in_order_and_the_model():
    table = predict(classifier(), photos()[:1], model="tiny/3")
    probs = [f"prob:{name}" for name in classifier().card.classes]
    assert list(table.columns) == ["path", "label", "confidence", *probs, "error", "model"]
    assert table.model.tolist() == ["tiny/3"]
    assert table.confidence[0] == table[probs].max(axis=1)[0]


def test_broken_photos_have_a_row_with_the_reason_and_no_answer(mixed):
    table = predict(classifier(), [str(mixed)])
    names = [os.path.relpath(path, mixed) for path in table.path]
    assert names == ["a.png", "b.jpg", "c.png", "deep/good.png"]
    reasons = [error.partition(":")[0] for error in table.error]
    assert reasons == ["truncated", "empty file", "git-lfs pointer", ""]
    broken = table[table.error != ""]
    assert (broken.label == "").all()
    assert broken.filter(regex="^(prob:|confidence)").isna().all(axis=None)
    alone = predict(classifier(), [str(mixed / "deep" / "good.png")])
    assert table.label[3] == alone.label[0]
    assert table.confidence[3] == pytest.approx(alone.confidence[0])


def test_only_broken_photos_are_no_crash(mixed):
    table = predict(classifier(), [str(mixed / "b.jpg"), str(mixed / "nowhere.png")])
    assert [error.partition(":")[0] for error in table.error] == ["empty file", "missing"]


def test_manifest_needs_no_labels_and_may_be_relative(mixed):
    place = mixed / "todo.csv"
    good = str(mixed / "deep" / "good.png")
    place.write_text(f"image,who\ndeep/good.png,me\n{good},you\n")
    assert places_in([str(place)]) == [good, good]
    pd.DataFrame({"image": ["deep/good.png"]}).to_parquet(mixed / "todo.parquet")
    assert places_in([str(mixed / "todo.parquet")]) == [good]


def test_a_bad_row_of_a_manifest_has_its_reason_and_ends_no_batch(mixed):
    place = mixed / "todo.csv"
    rows = [
        "image,label",
        "deep/good.png,a",
        ",b",
        "http://127.0.0.1:99999/x.jpg,a",
        "/etc/passwd,a",
    ]
    place.write_text("\n".join(rows))
    table = predict(classifier(), [str(place)])
    reasons = [error.partition(":")[0] for error in table.error]
    assert reasons == ["", "no image", "not allowed", "not allowed"]
    assert table.path.tolist()[1:] == [f"{place}, line 3", *(row[:-2] for row in rows[3:])]


def test_sources_keep_their_order(mixed):
    sources = [photos()[2], str(mixed / "deep"), photos()[0]]
    assert places_in(sources) == [photos()[2], str(mixed / "deep" / "good.png"), photos()[0]]


def test_url_is_read_as_a_path_is():
    path = photos()[0]
    remote, local = predict(classifier(), [f"file://{path}"]), predict(classifier(), [path])
    assert remote.label[0] == local.label[0]


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:9/a.png?x=1", "http://127.0.0.1:9/photo", "http://127.0.0.1:99999/a"]
)
def test_unreachable_url_has_a_row_and_ends_no_batch(url):
    table = predict(classifier(), [url, photos()[0]])
    assert table.path.tolist() == [url, photos()[0]]
    assert table.error[0].startswith("unreadable: ")
    assert table.error[1] == ""


def test_a_web_photo_is_not_asked_whether_it_is_a_folder(monkeypatch):
    def refuse(*arguments):
        raise AssertionError("asked")

    monkeypatch.setattr("fsspec.implementations.http.HTTPFileSystem.isdir", refuse)
    urls = ["http://example.invalid/a.JPG", "https://example.invalid/b.png?size=2"]
    assert places_in(urls) == urls


def test_the_pixel_limit_is_the_one_of_the_training():
    made = classifier()
    assert max_pixels_of(made.card) == 89_478_485
    small = made.with_card(config={"ingest.max_pixels": "3"})
    assert max_pixels_of(small.card) == 3
    assert predict(small, photos()[:1]).error[0].startswith("too many pixels")


def test_nothing_to_predict_is_told(tmp_path, mixed):
    (tmp_path / "empty").mkdir()
    with pytest.raises(NoPhotos, match=rf"{re.escape(str(tmp_path))}/empty\b.*\.jpg"):
        list_photos([str(tmp_path / "empty")])
    (mixed / "odd.csv").write_text("picture\na.png\n")
    with pytest.raises(ManifestError, match=r"\bimage\b.*/odd\.csv\b.*\bpicture\b"):
        list_photos([str(mixed / "odd.csv")])
    (mixed / "odd.parquet").write_bytes(b"no table")
    with pytest.raises(ManifestError, match=r"/odd\.parquet\b"):
        list_photos([str(mixed / "odd.parquet")])
    with pytest.raises(NoPhotos, match=r"/gone\.csv\b"):
        list_photos([str(mixed / "gone.csv")])


@pytest.mark.parametrize("extension", ["parquet", "csv", "json"])
def test_predictions_are_written_as_the_extension_says(tmp_path, mixed, extension):
    table = predict(classifier(), [str(mixed)], model="tiny/1")
    place = tmp_path / "out" / f"predictions.{extension}"
    write_predictions(table, str(place))
    if extension == "parquet":
        read = pd.read_parquet(place)
    elif extension == "csv":
        read = pd.read_csv(place, keep_default_na=False, na_values={"confidence": [""]})
    else:
        read = pd.DataFrame(json.loads(place.read_text()))
    assert list(read.columns) == list(table.columns)
    assert read.label.tolist() == table.label.tolist()
    assert read.confidence[3] == pytest.approx(table.confidence[3])
    assert read.confidence.isna().tolist() == [True, True, True, False]
    assert [path.name for path in place.parent.iterdir()] == [place.name]


def test_predictions_replace_an_older_file_whole(tmp_path):
    place = tmp_path / "p.csv"
    place.write_text("old")
    write_predictions(predict(classifier(), photos()[:2]), str(place))
    assert len(pd.read_csv(place)) == 2


def test_unknown_extension_lists_the_known_ones(tmp_path):
    with pytest.raises(ConfigError, match=r"\.parquet, \.csv, \.json\b.*'p\.xls'"):
        write_predictions(pd.DataFrame(), "p.xls")


def middle_confidence() -> float:
    """A threshold that some of the test photos reach and some do not."""
    confidence = predict(classifier(), photos()).confidence
    assert confidence.min() < confidence.median() < confidence.max()
    return float(confidence.median())


def test_below_the_threshold_the_label_is_unsure_and_the_numbers_are_the_same():
    plain, below = predict(classifier(), photos()), middle_confidence()
    table = predict(with_abstention(classifier(), below), photos())
    withheld = plain.confidence < below
    assert 0 < withheld.sum() < len(plain)
    assert (table.label[withheld] == UNSURE).all()
    assert table.label[~withheld].tolist() == plain.label[~withheld].tolist()  # equal is enough
    pd.testing.assert_frame_equal(
        table.drop(columns="label"), plain.drop(columns="label"), check_exact=True
    )


def test_a_photo_that_cannot_be_read_is_no_unsure_answer(mixed):
    table = predict(with_abstention(classifier(), 1.0), [str(mixed)])
    assert table.label.tolist() == ["", "", "", UNSURE]


def registered(tracking: TrackingConfig, rule: PredictConfig) -> registry.RegisteredVersion:
    made = trained()
    config = Config(registry=RegistryConfig(n_parity=2), tracking=tracking, predict=rule)
    return registry.register(made.challenger, made.report, made.splits, config, {})


@pytest.fixture
def tracking(tmp_path, monkeypatch) -> TrackingConfig:
    monkeypatch.chdir(tmp_path)
    return tracking_in(tmp_path)


def test_a_registered_and_served_model_is_as_unsure_as_its_training_says(tracking):
    judged = trained().report.predictions
    test = judged[judged.split == "test"]
    below = float(test.confidence.median()) + 1e-6  # off any photo: two ways of reading may differ
    version = registered(tracking, PredictConfig(abstain_below=below))
    assert registry.load(tracking, version).card.abstain_below == below
    model = load_model(version.bundle_url.removesuffix("/artifacts/bundle"))
    files = [Path(path).read_bytes() for path in test.path]
    answer = model.predict(pd.DataFrame({"image": files}))
    expected = test.predicted.where(test.confidence >= below, UNSURE)
    assert answer.label.tolist() == expected.tolist()
    assert 0 < (expected == UNSURE).sum() < len(expected)


def test_the_same_weights_under_another_threshold_are_another_version(tracking, caplog):
    first = registered(tracking, PredictConfig())
    second = registered(tracking, PredictConfig(target_risk=0.01))
    assert (first.version, second.version, second.created) == (1, 2, True)
    assert second.content_hash != first.content_hash
    assert registry.load(tracking, first).card.abstain_below == 0.0
    assert registry.load(tracking, second).card.abstain_below == 1.0  # so few photos show nothing
    assert re.search(r"\b299 photos\b", caplog.text)


def test_a_class_called_unsure_is_refused_at_registration(tracking):
    made = trained()
    classes = (UNSURE, *made.splits.classes[1:])
    challenger = replace(
        made.challenger, classifier=made.challenger.classifier.with_card(classes=classes)
    )
    config = Config(tracking=tracking, predict=PredictConfig(abstain_below=0.8))
    with pytest.raises(ConfigError, match=rf"'{UNSURE}'"):
        registry.register(challenger, made.report, made.splits, config, {})
    assert registry.list_versions(tracking).empty


@pytest.fixture
def asked(tmp_path, monkeypatch):
    """Runs `regraft predict` on the test photos, with a champion that is unsure of half of them."""
    state = open_state(tmp_path / "state")
    for name, value in environment(state, debug=False).items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    copied = tracking_in(tmp_path, "unsure")
    shutil.copyfile(copied.uri.removeprefix("sqlite:///"), state.mlflow_database)
    tracking = copied.model_copy(update={"uri": places(state).tracking.uri})
    judged = trained().report.predictions
    below = float(judged[judged.split == "test"].confidence.median())
    version = registered(tracking, PredictConfig(abstain_below=below))
    registry.set_alias(tracking, version, registry.CHAMPION)

    def call(*options: str):
        out = tmp_path / "answers.csv"
        where = ("--state", str(state.root), "--out", str(out))
        done = CliRunner().invoke(app, ["predict", *photos(), *where, *options])
        return done.exception or pd.read_csv(out)

    return call


def test_the_command_obeys_the_card_unless_it_is_told_another_threshold(asked):
    n = len(photos())
    assert 0 < (asked().label == UNSURE).sum() < n
    assert (asked("--set", "predict.abstain_below=1").label == UNSURE).sum() == n
    answered = asked("--set", "predict.abstain_below=0")
    assert answered.label.tolist() == predict(classifier(), photos()).label.tolist()


def test_the_command_refuses_a_risk_and_says_where_it_is_chosen(asked):
    error = asked("--set", "predict.target_risk=0.05")
    assert isinstance(error, ConfigError)
    # What is refused, and what may be set instead.
    assert re.match(r"predict\.target_risk=0\.05\b.*predict\.abstain_below\b", str(error))


def test_the_reports_curve_is_of_the_test_photos_and_ends_with_all_of_them():
    report = trained().report
    end = report.coverage.iloc[-1]
    assert (end.coverage, end.n) == (1.0, report.n)
    assert end.risk == pytest.approx(1 - report.accuracy.value)
    test = report.predictions[report.predictions.split == "test"]
    assert report.coverage.threshold.tolist() == sorted(set(test.confidence), reverse=True)
