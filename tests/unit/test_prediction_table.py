"""The table of predictions: temperature, threshold, order of classes, and its file formats."""

import csv
import math

import pytest
import torch
from tiny import CLASSES

from regraft.evaluation.predict import prediction_table, write_predictions

SIX = math.log(6)  # scores (ln 6, 0, 0) are probabilities (6, 1, 1) / 8


def card_of(start, **changes):
    return start.card.model_copy(update=changes)


def test_the_cards_temperature_divides_the_scores(start):
    scores = torch.tensor([[2 * SIX, 0.0, 0.0]])
    table = prediction_table(scores, card_of(start, temperature=2.0))
    assert table.confidence.tolist() == pytest.approx([6 / 8])
    assert table[[f"prob:{name}" for name in CLASSES]].iloc[0].tolist() == pytest.approx(
        [6 / 8, 1 / 8, 1 / 8]
    )


def test_classes_are_named_in_the_cards_order(start):
    scores = torch.tensor([[SIX, 0.0, 0.0], [0.0, SIX, 0.0], [0.0, 0.0, SIX]])
    names = ("green", "amber", "blue")
    table = prediction_table(scores, card_of(start, classes=names))
    assert table.label.tolist() == list(names)
    assert list(table.columns) == ["label", "confidence", *(f"prob:{name}" for name in names)]


def test_below_the_cards_threshold_and_only_there_an_answer_is_withheld(start):
    scores = torch.tensor([[0.0, 0.0, -math.inf], [SIX, 0.0, 0.0]])  # confidences 1 / 2 and 3 / 4
    for below, labels in (
        (0.0, ["amber", "amber"]),
        (0.5, ["amber", "amber"]),
        (0.501, ["unsure", "amber"]),
        (0.751, ["unsure", "unsure"]),
    ):
        table = prediction_table(scores, card_of(start, abstain_below=below))
        assert table.label.tolist() == labels
        assert table.confidence.tolist() == pytest.approx([0.5, 0.75])


def test_a_csv_has_a_header_and_no_other_column_whatever_names_hold(start, tmp_path):
    table = prediction_table(torch.tensor([[SIX, 0.0, 0.0]]), start.card)
    table.insert(0, "path", 'an "album", of\nbees/ä b.png')
    place = tmp_path / "my answers, all.csv"
    write_predictions(table, str(place))
    with place.open(encoding="utf-8", newline="") as file:
        header, row = csv.reader(file)
    assert header == list(table.columns)
    assert row[:2] == ['an "album", of\nbees/ä b.png', "amber"]
    assert [float(cell) for cell in row[2:]] == table.iloc[0, 2:].tolist()
