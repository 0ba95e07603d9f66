"""A spreadsheet opens our CSV files without executing a cell, and no text is lost."""

import csv
import io

import numpy as np
import pandas as pd
import pytest

from regraft.core.spreadsheet import csv_text, unescaped
from regraft.evaluation.predict import write_predictions

TEXTS = ("=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "\uff1d1")
HARMLESS = ("cat", "", "a=b", "'tis", "2024-01-01", "-3", "+1.5e-3", "-.5", "=" * 0)


def cells(text):
    return list(csv.reader(io.StringIO(text, newline="")))


@pytest.mark.parametrize("text", TEXTS)
def test_no_cell_begins_with_a_character_that_a_spreadsheet_computes(text):
    header, row = cells(csv_text(pd.DataFrame({text: [text]})))
    assert header == row == [f"'{text}"]


def test_numbers_and_harmless_texts_stay_as_they_are():
    table = pd.DataFrame({"text": HARMLESS, "number": np.linspace(-1, 1, len(HARMLESS))})
    assert csv_text(table) == table.to_csv(index=False)


@pytest.mark.parametrize("text", [*TEXTS, *HARMLESS, "'=1", "''@", "'"])
def test_reading_gives_back_the_text_that_was_written(text):
    _, [cell, _] = cells(csv_text(pd.DataFrame({"a": [text], "b": [0]})))
    assert unescaped(cell) == text


def test_predictions_are_written_for_a_spreadsheet(tmp_path):
    table = pd.DataFrame({"path": ["=a.jpg"], "label": ["@b"], "confidence": [0.5]})
    write_predictions(table, str(tmp_path / "p.csv"))
    assert (tmp_path / "p.csv").read_text().splitlines()[1] == "'=a.jpg,'@b,0.5"
    write_predictions(table, str(tmp_path / "p.parquet"))
    assert pd.read_parquet(tmp_path / "p.parquet").equals(table)
