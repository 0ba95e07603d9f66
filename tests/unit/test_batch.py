"""Batch prediction: one prediction for each photo, after additions, changes, removals and kills."""

import hashlib
import os
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import fsspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest
from tiny import photo

from regraft.core.config import EmbedConfig
from regraft.core.errors import ManifestError, NoPhotos, StateError
from regraft.data.ingest.walk import MISSING
from regraft.evaluation.predict import predict_paths
from regraft.model.embed import NO_STORE
from regraft.operations.batch import (
    Predictor,
    plan,
    predict_shard,
    read_current,
    read_predictions,
    summarise,
    walk,
)
from regraft.operations.batch.folder import (
    OutputPartition,
    clear_unfinished,
    read_plan,
    write_plan,
    write_predictions,
)
from regraft.operations.batch.index import open_index
from regraft.operations.batch.walk import Entry

pytestmark = pytest.mark.usefixtures("prepared_once")
SIZE = 3


@pytest.fixture
def predictor(start) -> Predictor:
    return Predictor(name="tiny", version=7, abstain_below=0.0, content=start.content_hash)


@pytest.fixture
def album(tmp_path) -> Path:
    """Seven photos, one of them in a subfolder, and files that are no photos."""
    folder = tmp_path / "Álbum, mit Leerzeichen"
    (folder / "tief").mkdir(parents=True)
    draw(folder, *(f"{number}.png" for number in range(6)), "tief/ä, ö\nü.PNG")
    (folder / ".hidden.png").write_bytes(b"hidden")
    (folder / "notes.txt").write_text("hello")
    (folder / "__MACOSX").mkdir()
    (folder / "__MACOSX" / "0.png").write_bytes(b"litter")
    (folder / "tief" / "up").symlink_to(folder)
    return folder


def draw(folder: Path, *names: str):
    for name in names:
        photo(int(hashlib.sha256(name.encode()).hexdigest()[:6], 16)).save(folder / name)


@pytest.fixture
def out(tmp_path) -> Path:
    return tmp_path / "out"


def files(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def planned(made) -> list[str]:
    """The paths of the photos in the plan, sorted."""
    return sorted(os.fsdecode(path) for shard in made.shards for path, _ in read_plan(shard))


def ask(made, start, store: EmbedConfig = NO_STORE):
    for shard in made.todo:
        predict_shard(shard, start, made.predictor, store)


def settle(made):
    """As ask(), but with invented predictions instead of a network."""
    for shard in made.todo:
        paths = [os.fsdecode(path) for path, _ in read_plan(shard)]
        seen = [hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in paths]
        said = {"path": paths, "sha256": seen, "label": "blue", "error": ""}
        table = pd.DataFrame(said).assign(model=made.predictor.reference)
        write_predictions(shard, pa.Table.from_pandas(table))


def photos_in(album: Path) -> list[str]:
    own = [path for path in album.iterdir() if path.suffix == ".png" and path.name[0] != "."]
    return sorted(map(str, [*own, album / "tief" / "ä, ö\nü.PNG"]))


def test_a_folder_is_walked_to_the_bottom_and_what_is_no_photo_passed_over(album):
    found = list(walk(str(album)))
    assert sorted(os.fsdecode(path) for path, _ in found) == photos_in(album)
    state = (album / "0.png").stat()
    stamps = {os.fsdecode(path): stamp for path, stamp in found}
    assert stamps[str(album / "0.png")] == f"{state.st_size}:{state.st_mtime_ns}"


def test_shards_hold_at_most_so_many_photos_sorted_by_path(album, out, predictor):
    made = plan([str(album)], str(out), predictor, SIZE)
    assert [shard.n_photos for shard in made.shards] == [3, 3, 1]
    assert made.todo == made.shards
    assert (made.n_photos, made.n_new, made.n_gone) == (7, 7, 0)
    paths = [os.fsdecode(path) for shard in made.shards for path, _ in read_plan(shard)]
    assert paths == photos_in(album)
    assert re.findall(r"\d+", str(made)) == ["7", "3", "7", "3"]  # photos, shards, new, to predict


def test_the_same_again_changes_no_byte_and_leaves_nothing_to_do(album, out, predictor):
    made = plan([str(album)], str(out), predictor, SIZE)
    settle(made)
    before = files(out)
    again = plan([f"{album}/"], str(out), predictor, SIZE)
    assert (again.todo, again.n_new) == ((), 0)
    assert again.n_photos == 7
    assert files(out) == before


def test_new_photos_come_into_new_shards_and_the_old_ones_stay(album, out, predictor):
    settle(plan([str(album)], str(out), predictor, SIZE))
    before = files(out)
    draw(album, *(f"0 new {number}.png" for number in range(9)))
    made = plan([str(album)], str(out), predictor, SIZE)
    assert [shard.n_photos for shard in made.todo] == [3, 3, 3]
    settle(made)
    assert planned(made) == photos_in(album)
    assert {path: data for path, data in files(out).items() if path in before} == before


def test_a_changed_photo_goes_to_a_new_shard_and_its_old_answer_no_longer_counts(
    album, out, predictor
):
    settle(plan([str(album)], str(out), predictor, SIZE))
    before = (album / "1.png").read_bytes(), (album / "1.png").stat()
    photo(99, colour=(255, 0, 0)).save(album / "1.png")
    made = plan([str(album)], str(out), predictor, SIZE)
    assert [shard.n_photos for shard in made.todo] == [1]
    assert (made.n_photos, made.n_new, made.n_gone) == (7, 1, 1)
    settle(made)
    table = pd.concat(read_predictions(made))
    assert sorted(table.path) == photos_in(album)
    assert len(pd.read_parquet(out)) == 8
    now = hashlib.sha256((album / "1.png").read_bytes()).hexdigest()
    assert table[table.path == str(album / "1.png")].sha256.tolist() == [now]
    (album / "1.png").write_bytes(before[0])
    os.utime(album / "1.png", ns=(before[1].st_atime_ns, before[1].st_mtime_ns))
    back = plan([str(album)], str(out), predictor, SIZE)
    assert (back.todo, back.n_new, back.n_gone) == ((), 0, 1)
    table = pd.concat(read_predictions(back))
    assert table[table.path == str(album / "1.png")].sha256.tolist() == [
        hashlib.sha256(before[0]).hexdigest()
    ]


def test_what_is_gone_is_told_and_what_comes_back_is_not(album, out, predictor):
    settle(plan([str(album)], str(out), predictor, SIZE))
    before = files(out)
    (album / "0.png").rename(album.parent / "0.png")
    made = plan([str(album)], str(out), predictor, SIZE)
    assert (made.n_photos, made.n_gone, made.todo) == (6, 1, ())
    (told,) = out.rglob("_gone/**/*.parquet")
    assert pq.read_table(told).to_pylist() == [{"row": 0, "path": os.fsencode(album / "0.png")}]
    assert str(album / "0.png") not in set(pd.concat(read_predictions(made)).path)
    assert summarise(made).n_gone == 1
    (album.parent / "0.png").rename(album / "0.png")
    assert plan([str(album)], str(out), predictor, SIZE).n_photos == 7
    assert files(out) == before


def test_a_shard_without_any_photo_left_is_not_answered(album, out, predictor):
    made = plan([str(album)], str(out), predictor, SIZE)
    for path, _ in read_plan(made.shards[0]):
        Path(os.fsdecode(path)).unlink()
    again = plan([str(album)], str(out), predictor, SIZE)
    assert {shard.digest for shard in again.todo} == {shard.digest for shard in made.shards[1:]}


def test_sources_do_not_touch_each_other(album, out, predictor, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    draw(other, "x.png")
    first = plan([str(album)], str(out), predictor, SIZE)
    before = files(out)
    both = plan([str(other), str(album / "0.png")], str(out), predictor, SIZE)
    assert planned(both) == sorted([str(other / "x.png"), str(album / "0.png")])
    assert {path: data for path, data in files(out).items() if path in before} == before
    again = plan([str(album), str(other)], str(out), predictor, SIZE)
    assert again.n_photos == first.n_photos + 1
    assert again.n_new == 0


def test_another_answerer_has_a_plan_of_its_own(album, out, predictor):
    settle(plan([str(album)], str(out), predictor, SIZE))
    new = predictor.model_copy(update={"version": 8, "content": "8" * 64})
    made = plan([str(album)], str(out), new, SIZE)
    assert len(made.todo) == 3
    settle(made)
    assert pd.read_parquet(out).model.value_counts().to_dict() == {"tiny/7": 7, "tiny/8": 7}


def test_answers_of_two_models_of_one_name_and_version_lie_apart(album, out, predictor):
    other = predictor.model_copy(update={"content": "8" * 64})
    for one in (predictor, other):
        settle(plan([str(album)], str(out), one, SIZE))
    table = pd.read_parquet(out)
    counts = table.content.astype(str).value_counts().to_dict()
    assert counts == {predictor.content[:16]: 7, "8" * 16: 7}


def test_a_photo_that_two_calls_planned_at_once_counts_once(album, out, predictor):
    made = plan([str(album)], str(out), predictor, SIZE)
    entries = [entry for shard in made.shards for entry in read_plan(shard)]
    with open_index() as photos:
        photos.add_listed(iter(entries))
        photos.add_planned(0, entries[:3])
        photos.add_planned(1, entries[2:5])
        assert [few for few in photos.new_batches(9)] == [sorted(entries[5:])]
        assert list(photos.gone_rows()) == [(1, [(0, entries[2].path)])]


def test_a_killed_planner_has_cut_where_the_next_one_cuts(album, out, predictor):
    whole = plan([str(album)], str(out), predictor, SIZE)
    for shard in whole.shards[1:]:
        Path(shard.plan_url).unlink()
    again = plan([str(album)], str(out), predictor, SIZE)
    assert {shard.digest for shard in again.shards} == {shard.digest for shard in whole.shards}


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such a name")
def test_a_name_that_is_no_text_is_answered_too(tmp_path, out, predictor, start):
    folder = tmp_path / "odd"
    folder.mkdir()
    draw(folder, "a.png")
    os.rename(os.fsencode(folder / "a.png"), os.fsencode(folder) + b"/caf\xe9.png")
    made = plan([str(folder)], str(out), predictor, SIZE)
    ask(made, start)
    table = pd.concat(read_predictions(made))
    assert table.path.tolist() == [f"{folder}/caf\\xe9.png"]
    assert table.error.tolist() == [""]


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_manifest_names_its_photos_in_its_column_image(album, out, predictor, start, kind):
    names = ["0.png", str(album / "1.png"), "tief/ä, ö\nü.PNG", "0.png", "nowhere.png"]
    table = pd.DataFrame({"who": "me", "image": names})
    place = album / f"todo.{kind}"
    if kind == "csv":
        table.to_csv(place, index=False, encoding="utf-8-sig")
    else:
        table.to_parquet(place)
    made = plan([str(place)], str(out), predictor, SIZE)
    ask(made, start)
    told = pd.concat(read_predictions(made)).set_index("path").error
    assert sorted(told.index) == sorted(str(album / name) for name in dict.fromkeys(names))
    assert told[told != ""].index.tolist() == [str(album / "nowhere.png")]


def test_a_photo_behind_a_url_in_a_manifest_needs_no_answer_of_its_server(tmp_path):
    (tmp_path / "m.csv").write_text("image\nhttp://127.0.0.1:9/a.png\nhttp://127.0.0.1:99999/a\n")
    found = dict(walk(str(tmp_path / "m.csv")))
    assert sorted(found) == [b"http://127.0.0.1:9/a.png", b"http://127.0.0.1:99999/a"]


def test_a_folder_behind_a_url_is_walked_too(album, out, predictor, start):
    fs = fsspec.filesystem("memory")
    fs.pipe_file("/album/deep/a b.png", (album / "0.png").read_bytes())
    fs.pipe_file("/album/.hidden.png", b"")
    made = plan(["memory://album"], "memory://out", predictor, SIZE)
    ask(made, start)
    assert pd.concat(read_predictions(made)).path.tolist() == ["memory:///album/deep/a b.png"]
    assert plan(["memory://album"], "memory://out", predictor, SIZE).todo == ()
    fs.pipe_file("/album/deep/a b.png", (album / "1.png").read_bytes())
    assert len(plan(["memory://album"], "memory://out", predictor, SIZE).todo) == 1
    fs.rm("/album", recursive=True)
    fs.rm("/out", recursive=True)


def test_nothing_to_answer_is_told(tmp_path, out, predictor):
    (tmp_path / "empty").mkdir()
    with pytest.raises(NoPhotos, match=r"/empty\b.* \.jpeg, .*\.jpg, .*\.png\b"):
        plan([str(tmp_path / "empty")], str(out), predictor, SIZE)
    with pytest.raises(NoPhotos, match=r"/nowhere\b"):
        plan([str(tmp_path / "nowhere")], str(out), predictor, SIZE)
    with pytest.raises(NoPhotos, match=r"/gone\.csv\b"):
        plan([str(tmp_path / "gone.csv")], str(out), predictor, SIZE)
    (tmp_path / "odd.csv").write_text("picture\na.png\n")
    with pytest.raises(ManifestError, match=r"\bimage\b.*/odd\.csv\b.*\bpicture\b"):
        plan([str(tmp_path / "odd.csv")], str(out), predictor, SIZE)
    (tmp_path / "odd.parquet").write_bytes(b"no table")
    with pytest.raises(ManifestError, match=r"/odd\.parquet\b"):
        plan([str(tmp_path / "odd.parquet")], str(out), predictor, SIZE)
    (tmp_path / "bare.csv").write_text("image\n")
    with pytest.raises(NoPhotos, match=r"/bare\.csv\b"):
        plan([str(tmp_path / "bare.csv")], str(out), predictor, SIZE)
    assert not out.exists()


def test_a_folder_that_has_become_empty_takes_no_answer_away(album, out, predictor):
    """The disk may not be mounted."""
    plan([str(album)], str(out), predictor, SIZE)
    before = files(out)
    album.rename(album.parent / "elsewhere")
    album.mkdir()
    with pytest.raises(NoPhotos):
        plan([str(album)], str(out), predictor, SIZE)
    assert files(out) == before


def test_a_damaged_plan_is_told_with_what_to_delete(album, out, predictor):
    made = plan([str(album)], str(out), predictor, SIZE)
    Path(made.shards[0].plan_url).write_bytes(b"PAR1")
    with pytest.raises(ManifestError) as told:
        plan([str(album)], str(out), predictor, SIZE)
    assert made.shards[0].plan_url in str(told.value)
    assert made.shards[0].predictions_url in str(told.value)  # what to delete with it


def test_an_out_that_cannot_be_written_is_told(album, tmp_path, predictor, start):
    place = tmp_path / "file"
    place.write_text("I am no folder")
    with pytest.raises(StateError, match=r"/file/_plan\b.*--out\b"):
        plan([str(album)], str(place), predictor, SIZE)
    made = plan([str(album)], str(tmp_path / "out"), predictor, SIZE)
    (tmp_path / "out" / "_writing").write_text("I am no folder")
    with pytest.raises(StateError, match=r"/out/_writing\b.*--out\b"):
        ask(made, start)
    assert not list((tmp_path / "out").glob("name=*/**/*.parquet"))


def test_answers_are_those_of_predict_and_never_given_twice(album, out, predictor, start):
    (album / "2.png").write_bytes((album / "2.png").read_bytes()[:60])
    made = plan([str(album)], str(out), predictor, SIZE)
    first = predict_shard(made.todo[0], start, predictor, NO_STORE)
    assert (first.n_photos, first.n_errors, first.is_new) == (3, 1, True)
    assert re.search(rf"\b3\b.*\b1\b.*{re.escape(made.todo[0].predictions_url)}", str(first))
    before = files(out)
    again = predict_shard(made.todo[0], start, predictor, NO_STORE)
    assert not again.is_new
    assert made.todo[0].predictions_url in str(again)
    assert str(again) != str(first)  # it says that nothing was computed
    assert files(out) == before
    table = read_current(made.todo[0])
    plain = predict_paths(start, photos_in(album)[:3])
    assert list(table.columns) == [*plain.columns, "model", "shard"]
    pd.testing.assert_frame_equal(table[plain.columns], plain)
    assert set(table.model) == {"tiny/7"}


def test_shards_in_threads_of_one_process_do_not_touch_each_other(album, out, predictor, start):
    made = plan([str(album)], str(out), predictor, 2)
    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(lambda one: predict_shard(one, start, predictor, NO_STORE), made.todo))
    assert [(one.n_photos, one.n_errors) for one in done] == [(2, 0), (2, 0), (2, 0), (1, 0)]
    table = pd.concat(read_predictions(made)).sort_values("path", ignore_index=True)
    plain = predict_paths(start, photos_in(album))
    pd.testing.assert_frame_equal(table[plain.columns], plain, rtol=1e-4)


def test_a_shard_of_broken_photos_has_the_columns_of_every_other(tmp_path, out, predictor, start):
    folder = tmp_path / "broken"
    folder.mkdir()
    (folder / "a.png").write_bytes(b"")
    (folder / "b.png").symlink_to("nowhere")
    draw(folder, "c.png", "d.png")
    made = plan([str(folder)], str(out), predictor, 2)
    ask(made, start)
    schemas = {pq.read_schema(shard.predictions_url).remove_metadata() for shard in made.shards}
    assert len(schemas) == 1
    table = pd.read_parquet(out).sort_values("path", ignore_index=True)
    assert [error.partition(":")[0] for error in table.error] == ["empty file", "missing", "", ""]
    assert table.confidence.isna().tolist() == [True, True, False, False]
    summary = summarise(made)
    assert (summary.n_photos, summary.n_errors, summary.n_unopened) == (4, 2, 1)
    assert summary.unopened == (made.shards[0].predictions_url,)
    assert sum(summary.labels.values()) == 2


def test_the_folder_is_one_table_for_pandas_and_arrow(album, out, predictor, start):
    made = plan([str(album)], str(out), predictor, SIZE)
    ask(made, start)
    (out / "_writing" / "killed.parquet").write_bytes(b"half a")
    table = pd.read_parquet(out)
    assert sorted(table.path) == photos_in(album)
    assert set(table.version) == {7}
    arrow = pyarrow.dataset.dataset(out, partitioning="hive").to_table()
    assert arrow.num_rows == 7
    assert set(arrow["name"].to_pylist()) == {"tiny"}
    probs = table.filter(like="prob:").to_numpy()
    assert np.allclose(probs.sum(axis=1), 1.0)


def test_what_a_killed_process_was_writing_goes_after_a_day(album, out, predictor, start):
    ask(plan([str(album)], str(out), predictor, SIZE), start)
    old, new = (out / "_writing" / f"{age}.parquet" for age in ("old", "new"))
    for part in (old, new):
        part.write_bytes(b"half a")
    os.utime(old, (0, 0))
    (out / "_writing" / "folder").mkdir()
    clear_unfinished(str(out), datetime.now(UTC))
    assert (old.exists(), new.exists()) == (False, True)


def test_the_store_is_used_where_there_is_one(album, out, predictor, start, tmp_path, caplog):
    caplog.set_level("INFO", "regraft.embed")
    store = EmbedConfig(store_url=str(tmp_path / "embeddings"))
    predict_paths(start, photos_in(album), store)
    ask(plan([str(album)], str(out), predictor, SIZE), start, store)
    counts = [re.findall(r"\d+", record.getMessage())[:3] for record in caplog.records]
    assert counts == [["7", "0", "7"], ["3", "3", "0"], ["3", "3", "0"], ["1", "1", "0"]]


def test_an_unreadable_folder_is_a_row_and_not_the_end(album, monkeypatch):
    def refuse(place):
        if str(place).endswith("tief"):
            raise PermissionError(13, "Permission denied")
        return scandir(place)

    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", refuse)
    found = dict(walk(str(album)))
    assert found[os.fsencode(album / "tief")] == MISSING
    assert len(found) == 7


def test_missing_photos_have_a_stamp_of_their_own(tmp_path):
    (tmp_path / "m.csv").write_text("image\nnowhere.png\n")
    assert list(walk(str(tmp_path / "m.csv"))) == [
        Entry(os.fsencode(tmp_path / "nowhere.png"), MISSING)
    ]


def test_a_plan_is_read_as_it_was_written(out, predictor):
    entries = [Entry(b"/caf\xe9\n,.png", "1:2"), Entry("s3://b/ä".encode(), "x")]
    partition = OutputPartition(out=str(out), source="s3://b", predictor=predictor)
    shard = write_plan(partition, entries)
    assert read_plan(shard) == entries
    assert partition.planned_digests() == [shard.digest]
