"""Room in the store of rows: what was used lately stays, and no more goes than has to."""

import os
import time
from pathlib import Path

import fsspec
import pytest
import torch

from regraft.model.backbone import Preprocessing
from regraft.model.embed import Recipe, contents, count_photos, make_room
from regraft.model.embed.store import Shard, Shelf

LOOK = Preprocessing(size=8, resize=8, mean=(0, 0, 0), std=(1, 1, 1), interpolation="bilinear")


def hashes(n, first=0):
    return tuple(f"{number:064x}" for number in range(first, first + n))


def fill(url: str, weights: str, n_shards: int = 3, n_photos: int = 10) -> Shelf:
    """A shelf of shards with 1000 numbers a photo."""
    made = {"architecture": "timm:tiny", "weights": weights, "preprocessing": LOOK}
    shelf = Shelf(url, Recipe(**made, compute="float32 on cpu", maker="m"))
    for number in range(n_shards):
        rows = torch.full((n_photos, 1000), float(number))
        shelf.add(Shard(hashes(n_photos, number * n_photos), rows))
    shelf.touch()
    return shelf


def used(shelf: Shelf, seconds_ago: float):
    then = time.time() - seconds_ago
    os.utime(Path(shelf.folder) / "recipe.json", (then, then))


@pytest.fixture
def url(tmp_path):
    return str(tmp_path / "store")


@pytest.fixture
def three(url):
    """Three shelves, the second used last and the third never since."""
    shelves = {name: fill(url, name) for name in ("a", "b", "c")}
    for name, seconds_ago in {"a": 100, "b": 0, "c": 1000}.items():
        used(shelves[name], seconds_ago)
    return shelves


def n_shards(shelf: Shelf) -> int:
    return len(list(Path(shelf.folder).glob("*.safetensors")))


def test_contents_are_told_the_last_used_first(url, three):
    found = contents(url)
    assert [shelf.recipe.weights for shelf in found] == ["b", "a", "c"]
    assert [count_photos(url, shelf) for shelf in found] == [30, 30, 30]
    for shelf in found:
        sizes = [path.stat().st_size for path in Path(shelf.folder).iterdir()]
        assert shelf.n_bytes == sum(sizes)


def test_a_photo_in_two_shards_counts_once(url):
    shelf = fill(url, "a", n_shards=1)
    shelf.add(Shard(hashes(10, first=5), torch.zeros(10, 1000)))
    [found] = contents(url)
    assert count_photos(url, found) == 15


def test_nothing_holds_nothing(url):
    assert contents(url) == []
    assert make_room(url, 0) == 0


def test_a_store_within_its_bound_is_not_touched(url, three):
    total = sum(shelf.n_bytes for shelf in contents(url))
    fill(url, "empty", n_shards=0)
    used(fill(url, "long empty", n_shards=0), 9999)
    before = sorted(Path(url).rglob("*"))
    assert make_room(url, total + 10_000) == 0
    assert sorted(Path(url).rglob("*")) == before


def test_what_was_not_used_longest_goes_first_and_never_more_than_needed(url, three):
    total = sum(shelf.n_bytes for shelf in contents(url))
    shard = max(contents(url)[0].files.values())
    assert make_room(url, total - 1) == shard
    assert [n_shards(three[name]) for name in "abc"] == [3, 3, 2]
    left = sum(shelf.n_bytes for shelf in contents(url))
    freed = make_room(url, left - 2.5 * shard)
    assert 2.5 * shard <= freed <= 3 * shard + 1000
    assert [n_shards(three[name]) for name in "abc"] == [2, 3, 0]
    assert not Path(three["c"].folder).exists()


def test_no_room_at_all_empties_the_store(url, three):
    total = sum(shelf.n_bytes for shelf in contents(url))
    assert make_room(url, 0) == total
    assert list(Path(url).iterdir()) == []


def test_a_shard_that_was_never_finished_counts_and_goes_first(url):
    shelf = fill(url, "a")
    part = next(Path(shelf.folder).glob("*.safetensors"))
    part = part.with_name(f"{part.name}.0123abcd.part")
    part.write_bytes(bytes(5000))
    total = sum(one.n_bytes for one in contents(url))
    assert make_room(url, total - 1) == 5000
    assert not part.exists()
    assert n_shards(shelf) == 3


def test_what_is_not_ours_is_neither_counted_nor_removed(url):
    fill(url, "a")
    others = [Path(url) / "notes" / "recipe.json", Path(url) / ("0" * 64) / "mine.txt"]
    for other in others:
        other.parent.mkdir()
        other.write_text("mine")
    assert len(contents(url)) == 1
    make_room(url, 0)
    assert sorted(path for path in Path(url).rglob("*") if path.is_file()) == sorted(others)


def test_what_another_writer_adds_meanwhile_stays(url, monkeypatch):
    shelf = fill(url, "a", n_shards=1)
    room = Path(shelf.folder)
    local = fsspec.filesystem("file")
    remove = local.rm_file

    def remove_while_another_adds(path):
        shelf.add(Shard(hashes(1, first=99), torch.ones(1, 1000)))
        remove(path)

    monkeypatch.setattr(local, "rm_file", remove_while_another_adds, raising=False)
    make_room(url, 0)
    monkeypatch.undo()
    assert [shard.photos for shard in shelf.read(hashes(1, first=99))] == [hashes(1, first=99)]
    assert len(list(room.iterdir())) == 1
    [found] = contents(url)  # without a recipe.json, but neither forgotten nor in the way
    assert found.recipe is None
    assert make_room(url, 0) == found.n_bytes


def test_two_that_make_room_at_once_do_not_stumble(url, three, monkeypatch):
    local = fsspec.filesystem("file")
    remove = local.rm_file

    def remove_twice(path):
        os.unlink(path)
        remove(path)

    monkeypatch.setattr(local, "rm_file", remove_twice, raising=False)
    total = sum(shelf.n_bytes for shelf in contents(url))
    assert make_room(url, 0) == total


@pytest.mark.parametrize("text", ["", "{}", '{"format": 99}', "\x00"])
def test_the_recipe_of_another_version_ends_nothing(url, three, text):
    (Path(three["a"].folder) / "recipe.json").write_text(text)
    assert {shelf.recipe.weights if shelf.recipe else "" for shelf in contents(url)} == {
        *("", "b", "c")
    }
    assert sum(len(shard.photos) for shard in three["a"].read(hashes(30))) == 30
    make_room(url, 0)
    assert contents(url) == []


def test_a_store_behind_a_url_has_room_made_too():
    url = "memory://room/rows"
    fill(url, "a")
    fill(url, "b")
    first, last = contents(url)
    assert (first.recipe.weights, last.recipe.weights) == ("b", "a")
    assert make_room(url, first.n_bytes) == last.n_bytes
    assert [shelf.recipe.weights for shelf in contents(url)] == ["b"]
    make_room(url, 0)
    assert contents(url) == []
