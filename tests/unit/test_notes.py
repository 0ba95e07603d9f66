"""Every decision that the user did not make is stated in a note, and a user's own decision is not.

The notes of ingest, split and training travel to the report, the model card and the console.
"""

import re
from dataclasses import replace
from types import SimpleNamespace

import pandas as pd
import pytest
from test_model_card import model_card
from test_report import report_of
from test_split import photo_row, rows_of, sides, table_of
from tiny import photo_file, write_files

from regraft.cli.summary import summarize
from regraft.core.config import IngestConfig, SplitConfig
from regraft.data.ingest import ingest
from regraft.data.split import split
from regraft.evaluation.evaluate.metrics import unused_slices
from regraft.evaluation.report.findings import findings
from regraft.operations.workflows.train import TrainedModel
from regraft.registry import RegisteredVersion
from regraft.registry.model_card.sections import sections


def given(*names, n=40):
    return [row for name in names for row in rows_of(n, prefix=name, given=name)]


def read(root, **options):
    return ingest(IngestConfig(photos=str(root), **options))


def nested(root):
    """Two classes of two breeds each; one breed has the same name in both."""
    folders = ("cat/tabby", "cat/large", "dog/large", "dog/poodle")
    names = [f"{folder}/{i}.png" for folder in folders for i in range(2)]
    return write_files(root, {name: photo_file(at) for at, name in enumerate(names)})


def test_a_data_set_that_the_user_divided_completely_has_no_note():
    assert split(table_of(given("train", "validation", "test")), SplitConfig()).notes == ()
    assert split(table_of(rows_of(80)), SplitConfig()).notes == ()


def test_a_test_split_that_is_taken_from_train_is_stated_with_its_size():
    splits = split(table_of(given("train", "validation")), SplitConfig())
    [note] = splits.notes
    assert f" {len(splits.test)} were taken from train" in note
    assert re.search(r" 40 given validation .*split\.validation_as_test=true", note)
    [note] = split(table_of(given("train", "test")), SplitConfig()).notes
    assert "validation_as_test" not in note
    assert "No validation photos" in note


def test_given_validation_photos_become_the_test_split_if_the_user_says_so():
    table = table_of(given("train", "validation"))
    splits = split(table, SplitConfig(validation_as_test=True))
    given_split = splits.frame.set_index("path")["given_split"]
    assert {given_split[path] for path in splits.test["path"]} == {"validation"}
    assert len(splits.test) == 40
    assert {given_split[path] for path in splits.validation["path"]} == {"train"}
    tested, cut = splits.notes
    assert "The 40 given validation photos are the test split" in tested
    assert f"No validation photos were given: {len(splits.validation)} were taken" in cut


def test_validation_as_test_changes_nothing_if_test_photos_were_given():
    table = table_of(given("train", "validation", "test"))
    splits = split(table, SplitConfig(validation_as_test=True))
    assert sides(splits) == sides(split(table, SplitConfig()))
    assert "no effect" in splits.notes[0]


def test_photos_without_a_split_among_photos_with_one_are_counted():
    rows = [*given("train", "validation", "test"), *rows_of(6, prefix="none")]
    [note] = split(table_of(rows), SplitConfig()).notes
    assert note.startswith("6 photos without a given split")


def test_a_class_that_no_test_photo_shows_is_named():
    rows = [*rows_of(80), photo_row("only.png", "emu")]
    test, validation = split(table_of(rows), SplitConfig()).notes
    assert "without a test photo: emu" in test
    assert "without a validation photo: emu" in validation


def test_the_splits_that_the_memory_decides_are_counted(tmp_path):
    memory = str(tmp_path)
    rows = rows_of(80)
    first = split(table_of(rows), SplitConfig(memory_url=memory))
    assert split(table_of(rows), SplitConfig(memory_url=memory)).notes == first.notes == ()
    [sticky] = split(table_of(rows), SplitConfig(memory_url=memory, test_fraction=0.4)).notes
    [n_others] = re.findall(r"^(\d+) photos would be in another split without the memory", sticky)
    assert 80 * (0.4 - SplitConfig().test_fraction) <= int(n_others) <= 80 * 0.4
    moved = [row | {"given_split": "test"} for row in rows[:10]] + rows[10:]
    notes = split(table_of(moved), SplitConfig(memory_url=memory)).notes
    assert any(re.match(r"\d+ photos left the split of an earlier run", note) for note in notes)


def test_a_test_split_that_is_not_frozen_yet_is_stated(tmp_path):
    config = SplitConfig(memory_url=str(tmp_path), freeze_test=True)
    [note] = split(table_of(rows_of(80)), config).notes
    assert "from the next run" in note


def test_deeper_folders_that_become_one_class_are_counted(tmp_path):
    table = read(nested(tmp_path))
    assert table.classes == ("cat", "dog")
    [note] = table.notes
    assert re.match(r"4 folders .* 2 classes .*ingest\.label_from=top.* leaf or path", note)
    assert read(tmp_path / "cat").notes == ()


@pytest.mark.parametrize(
    ("label_from", "classes", "n_notes"),
    [
        ("leaf", ("large", "poodle", "tabby"), 1),
        ("path", ("cat/large", "cat/tabby", "dog/large", "dog/poodle"), 0),
    ],
)
def test_the_user_may_name_the_classes_by_the_deeper_folders(
    tmp_path, label_from, classes, n_notes
):
    write_files(nested(tmp_path), {"cat/README.txt": b"of the breeds"})
    table = read(tmp_path, label_from=label_from)
    assert table.classes == classes
    assert len(table.notes) == n_notes
    inbox = read(tmp_path / "cat", inbox=str(tmp_path / "dog"), label_from="leaf")
    assert inbox.classes == ("large", "poodle", "tabby")


def test_splits_are_no_part_of_a_class_path(tmp_path):
    nested(tmp_path / "train")
    nested(tmp_path / "val")
    table = read(tmp_path, label_from="path")
    assert table.classes == ("cat/large", "cat/tabby", "dog/large", "dog/poodle")
    assert set(table.frame["given_split"]) == {"train", "validation"}


def test_the_notes_travel_from_the_image_table_to_the_splits():
    table = replace(table_of(rows_of(40)), notes=("81 folders",))
    assert split(table, SplitConfig()).notes == ("81 folders",)


def test_the_report_shows_every_note_escaped():
    notes = ("1 of <b>", "2 of x")
    shown = [str(finding.text) for finding in findings(replace(report_of(), notes=notes))]
    assert shown[-2:] == ["1 of &lt;b&gt;", "2 of x"]


def test_the_model_card_shows_every_note():
    card = model_card()
    card = replace(card, card=card.card.model_copy(update={"notes": ("1 of x",)}))
    [data] = [section for section in sections(card) if section.title == "Data"]
    assert data.notes == ("1 of x",)


def test_a_column_with_too_many_values_for_slices_is_named():
    photos = pd.DataFrame({"slice:serial": list("abcde"), "slice:cell": list("mmmpp")})
    assert unused_slices(photos, 4) == ["serial"]


def test_the_console_and_the_result_have_every_note(tmp_path):
    report = replace(report_of(), notes=("1 of x",))
    report = replace(report, predictions=report.predictions.assign(path="a.jpg"))
    verdict = SimpleNamespace(is_serving=True, is_pending=False, reason="it is the first")
    version = RegisteredVersion("cats", 1, "/bundle", "c" * 64, "")
    model = TrainedModel(report, version, verdict, "page.html", ())
    assert model.notes == ("1 of x",)
    assert summarize(model, tmp_path).count("  note             1 of x\n") == 1
