"""The evaluation report, on numbers that can be checked by hand."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from regraft.core.config import EvaluateConfig
from regraft.core.errors import DataError, EmptySplit
from regraft.data.split import Splits
from regraft.evaluation import evaluate as room
from regraft.evaluation.evaluate import evaluate_logits
from regraft.model.backbone import BackboneInfo, Preprocessing, SourceTask
from regraft.model.card import Card, ClassContract
from regraft.model.classifier import ImageClassifier
from regraft.model.freeze import FreezeAudit, FreezePlan, PlannedParameter
from regraft.model.pixels import photos_of
from regraft.stats import TransferGain
from regraft.training.tune import Challenger

CLASSES = ("ant", "bee", "cat")
TRANSFER = TransferGain(4, 10, 0.8, 0.5, 0.4, 0.3, 0.1, 0.5)
SURE = 4.0  # logit of the class that a fake network believes in; the others have 0


def challenger(classes=CLASSES):
    preprocessing = Preprocessing(
        size=8, resize=8, mean=(0.5,) * 3, std=(0.5,) * 3, interpolation="bilinear"
    )
    task = SourceTask(data="ImageNet-1k", n_classes=1000, licence="Apache-2.0")
    info = BackboneInfo(
        source="bundled:tiny",
        architecture="timm:tiny",
        embedding_dim=4,
        preprocessing=preprocessing,
        source_task=task,
        sha256="ab" * 32,
    )
    card = Card(
        classes=classes,
        backbone=info,
        contract=ClassContract(added=classes),
        config={"tune.epochs": "8"},
        versions={"torch": "2.15.0"},
    )
    plan = FreezePlan(
        "probe",
        (
            PlannedParameter("backbone.weight", "stem", 10, 0.0),
            PlannedParameter("head.weight", "head", 12, 1.0),
        ),
        "still",
    )
    history = pd.DataFrame([{"phase": "head", "epoch": 1, "validation_loss": 0.5}])
    audit = FreezeAudit(1, 0, 0, "cd" * 32)
    manifest = pd.DataFrame(columns=["sha256", "phash", "label", "split"])
    return Challenger(
        ImageClassifier(card, {}), plan, audit, history, "head", manifest, "head solved", "run7"
    )


def splits_of(frame, leaks=(), quarantine=(), classes=CLASSES):
    leak_columns = [
        "path", "label", "split", "other_path", "other_label", "other_split",
        "kind", "distance", "action",
    ]  # fmt: skip
    return Splits(
        frame=frame,
        leaks=pd.DataFrame(leaks, columns=leak_columns),
        quarantine=pd.DataFrame(quarantine, columns=["path", "label", "reason", "detail"]),
        classes=classes,
        digest="d" * 64,
        n_ignored=2,
        n_duplicates=1,
        source="photos",
    )


def photos_in(folder):
    """Makes rows of one side: real 8x8 photos, named after their position."""

    def make(labels, side, **columns):
        paths = [folder / f"{side}{at}.png" for at in range(len(labels))]
        for path in paths:
            Image.new("RGB", (8, 8), "red").save(path)
        return pd.DataFrame(
            {
                "path": [str(path) for path in paths],
                "label": labels,
                "sha256": [f"{side}{at}" for at in range(len(labels))],
                "split": side,
                **columns,
            }
        )

    return make


@pytest.fixture
def photos(tmp_path):
    return photos_in(tmp_path)


def scores_for(said, classes=CLASSES, sure=SURE):
    scores = torch.zeros(len(said), len(classes))
    for row, label in enumerate(said):
        scores[row, classes.index(label)] = sure
    return scores


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """Ten test photos, eight judged rightly; train's largest class is bee."""
    photos = photos_in(tmp_path_factory.mktemp("photos"))
    train = photos(["ant", "bee", "bee", "cat"], "train")
    validation = photos(["ant", "bee", "cat"], "validation")
    truth = ["ant"] * 4 + ["bee"] * 4 + ["cat"] * 2
    said = ["ant", "ant", "ant", "bee"] + ["bee"] * 4 + ["cat", "bee"]
    light = ["day"] * 5 + ["night"] * 5
    test = photos(truth, "test", **{"slice:light": light})
    splits = splits_of(pd.concat([train, validation, test], ignore_index=True))
    scores = scores_for([*said, "ant", "bee", "cat"])
    return evaluate_logits(challenger(), TRANSFER, splits, scores, EvaluateConfig())


def test_exactly_the_test_photos_are_scored(report):
    assert report.n == 10
    assert report.accuracy.value == pytest.approx(8 / 10)
    assert (report.predictions.split == "test").sum() == 10
    assert (report.predictions.split == "validation").sum() == 3
    assert report.confusion.n.sum() == 10


def test_the_interval_of_the_accuracy_is_wilsons(report):
    z, p, n = 1.959964, 0.8, 10
    centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    assert report.accuracy.low == pytest.approx(centre - half, abs=1e-6)
    assert report.accuracy.high == pytest.approx(centre + half, abs=1e-6)


def test_the_baseline_always_says_the_largest_class_of_train(report):
    assert report.baseline_label == "bee"
    assert report.baseline.value == pytest.approx(4 / 10)


def test_top_k_is_at_most_one_class_short_of_all(report):
    assert EvaluateConfig().top_k == 3
    assert report.top_k == 2


def test_a_label_among_the_k_highest_scores_is_a_hit():
    scores = np.array([[3.0, 2.0, 1.0], [3.0, 2.0, 1.0], [3.0, 2.0, 1.0], [1.0, 2.0, 3.0]])
    share = room.top_k_interval(np.array([0, 1, 2, 2]), scores, 2, 0.95)
    assert share.value == 3 / 4


def test_precision_and_recall_of_each_class(report):
    table = report.per_class.set_index("label")
    assert table.recall.tolist() == pytest.approx([3 / 4, 4 / 4, 1 / 2])
    assert table.precision.tolist() == pytest.approx([3 / 3, 4 / 6, 1 / 1])
    assert table.f1.tolist() == pytest.approx([6 / 7, 8 / 10, 2 / 3])
    assert report.macro_f1 == pytest.approx((6 / 7 + 8 / 10 + 2 / 3) / 3)
    assert table.n_train.tolist() == [1, 2, 1]
    assert (table.recall_low < table.recall).all()


def test_confusions_are_counted_by_true_and_predicted_label(report):
    cells = {(row.label, row.predicted): row.n for row in report.confusion.itertuples()}
    assert cells == {
        ("ant", "ant"): 3,
        ("ant", "bee"): 1,
        ("bee", "bee"): 4,
        ("cat", "bee"): 1,
        ("cat", "cat"): 1,
    }


def test_a_slice_has_its_own_accuracy(report):
    assert report.slices.loc[:, ["column", "value", "n"]].to_numpy().tolist() == [
        ["light", "day", 5],
        ["light", "night", 5],
    ]
    assert report.slices.accuracy.tolist() == pytest.approx([4 / 5, 4 / 5])


def test_predictions_hold_a_probability_a_class_in_the_classifiers_order(report):
    columns = [f"prob:{name}" for name in CLASSES]
    assert report.predictions.columns.tolist()[-3:] == columns
    assert report.predictions[columns].sum(axis=1).to_numpy() == pytest.approx(1.0)
    first = report.predictions.iloc[0]
    sure = math.exp(SURE) / (math.exp(SURE) + 2)
    assert first["prob:ant"] == first.confidence == pytest.approx(sure)
    assert first.loss == pytest.approx(-math.log(sure))


def test_mistakes_are_pictured_and_the_pictures_are_small_jpegs(report):
    mistakes = report.gallery[report.gallery.kind == "mistake"]
    assert mistakes.label.tolist() == ["ant", "cat"]
    assert mistakes.predicted.tolist() == ["bee", "bee"]
    assert all(jpeg.startswith(b"\xff\xd8") for jpeg in mistakes.jpeg)


def test_a_class_missing_from_test_shifts_no_label(photos):
    frame = pd.concat([photos(list(CLASSES), "train"), photos(["ant", "cat"], "test")])
    report = evaluate_logits(
        challenger(), TRANSFER, splits_of(frame), scores_for(["ant", "cat"]), EvaluateConfig()
    )
    table = report.per_class.set_index("label")
    assert report.accuracy.value == 1.0
    assert table.n.tolist() == [1, 0, 1]
    assert math.isnan(table.recall["bee"])
    assert math.isnan(table.precision["bee"])
    assert report.macro_f1 == 1.0


def test_two_classes_have_no_top_k(photos):
    classes = ("ant", "bee")
    frame = pd.concat([photos(list(classes), "train"), photos(["ant", "bee"], "test")])
    scores = scores_for(["ant", "ant"], classes)
    report = evaluate_logits(
        challenger(classes), TRANSFER, splits_of(frame, classes=classes), scores, EvaluateConfig()
    )
    assert report.top_k == 0
    assert math.isnan(report.top_k_accuracy.value)
    assert report.accuracy.value == 0.5


def test_leaked_photos_are_pictured_on_both_sides(photos):
    train, test = photos(list(CLASSES), "train"), photos(list(CLASSES), "test")
    leak = (train.path[0], "ant", "train", test.path[0], "ant", "test", "copy", 0, "dropped")
    splits = splits_of(pd.concat([train[1:], test]), leaks=[leak])
    report = evaluate_logits(challenger(), TRANSFER, splits, scores_for(CLASSES), EvaluateConfig())
    assert report.gallery.path.tolist() == [train.path[0], test.path[0]]
    assert report.gallery.note.tolist() == ["train", "test"]


def test_without_validation_photos_the_confidence_stays_as_it_is(photos):
    frame = pd.concat([photos(list(CLASSES), "train"), photos(list(CLASSES), "test")])
    report = evaluate_logits(
        challenger(), TRANSFER, splits_of(frame), scores_for(CLASSES), EvaluateConfig()
    )
    assert report.temperature == 1.0
    assert report.ece_before == report.ece_after
    assert len(report.predictions) == 3


def test_the_confidence_is_fitted_on_validation_and_applied_to_test(photos):
    """3 of 4 validation photos are judged rightly, all test photos wrongly."""
    said = ["ant", "bee", "cat", "ant"] * 10
    validation = photos(["ant", "bee", "cat", "bee"] * 10, "validation")
    test = photos(["bee", "cat", "ant", "cat"] * 10, "test")
    splits = splits_of(pd.concat([photos(list(CLASSES), "train"), validation, test]))
    report = evaluate_logits(challenger(), TRANSFER, splits, scores_for(said * 2), EvaluateConfig())
    assert report.temperature == pytest.approx(SURE / math.log(6), rel=1e-3)  # 6 / (6 + 2) = 3 / 4
    of_test = report.predictions[report.predictions.split == "test"]
    assert of_test.confidence.tolist() == pytest.approx([0.75] * 40, rel=1e-3)


def test_a_class_that_is_never_predicted_counts_in_macro_f1_and_has_no_precision(photos):
    frame = pd.concat([photos(list(CLASSES), "train"), photos(["ant", "bee"], "test")])
    report = evaluate_logits(
        challenger(), TRANSFER, splits_of(frame), scores_for(["ant", "ant"]), EvaluateConfig()
    )
    assert report.macro_f1 == pytest.approx((2 / 3 + 0) / 2)
    assert math.isnan(report.per_class.set_index("label").precision["bee"])


def test_the_classifier_is_asked_once_about_every_held_out_photo(photos, monkeypatch):
    asked = []

    def logits(_, photos, store):
        asked.extend(photos)
        return scores_for(["ant", "bee", "cat", "ant"])

    monkeypatch.setattr("regraft.evaluation.evaluate.evaluation.logits", logits)
    train, validation = photos(list(CLASSES), "train"), photos(["ant"], "validation")
    test = photos(list(CLASSES), "test")
    splits = splits_of(pd.concat([validation, train, test]))
    report = room.evaluate(challenger(), TRANSFER, splits, EvaluateConfig())
    assert asked == [*photos_of(test), *photos_of(validation)]
    assert report.transfer == TRANSFER
    assert (report.n, report.accuracy.value) == (3, 1.0)


def test_an_empty_test_side_is_an_error(photos):
    splits = splits_of(photos(list(CLASSES), "train"))
    with pytest.raises(EmptySplit, match=r"\btest photos\b.*\bin photos\b"):
        evaluate_logits(challenger(), TRANSFER, splits, torch.zeros(0, 3), EvaluateConfig())


def test_a_label_that_the_classifier_does_not_know_is_an_error():
    with pytest.raises(DataError, match=r"\(ant, bee, cat\).*\b1\b.*'dog'"):
        room.class_codes(pd.Series(["ant", "dog"]), CLASSES)


def test_facts_name_the_photos_the_backbone_and_the_run(report):
    assert report.facts["source"] == "photos"
    assert report.facts["test photos"] == "10"
    assert report.facts["licence of the weights"] == "Apache-2.0"
    assert report.facts["MLflow run"] == "run7"
    assert report.facts["torch version"] == "2.15.0"
    assert report.class_counts.set_index("label").loc["bee"].tolist() == [2, 1, 4]


def test_a_slice_column_with_one_value_or_too_many_is_none():
    photos = pd.DataFrame({"slice:same": ["x"] * 4, "slice:many": list("abcd")})
    assert room.slice_table(photos, np.array([True] * 4), 0.95, max_values=3).empty


def test_an_empty_cell_is_a_slice_of_its_own():
    photos = pd.DataFrame({"slice:camera": ["old", None, None]})
    table = room.slice_table(photos, np.array([True, False, True]), 0.95, max_values=3)
    assert table.value.tolist() == ["(missing)", "old"]
    assert table.accuracy.tolist() == [0.5, 1.0]
