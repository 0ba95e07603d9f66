"""Eviction from the embedding store: the least recently used files, and no more than needed."""

import os
import time
from pathlib import Path

import fsspec
import pytest
import torch

from regraft.model.backbone import Preprocessing
from regraft.model.embed import CacheKey, contents, count_photos, evict_lru
from regraft.model.embed.store import EmbeddingPartition, Shard

LOOK = Preprocessing(size=8, resize=8, mean=(0, 0, 0), std=(1, 1, 1), interpolation="bilinear")


def hashes(n, first=0):
    return tuple(f"{number:064x}" for number in range(first, first + n))


def fill(url: str, weights: str, n_shards: int = 3, n_photos: int = 10) -> EmbeddingPartition:
    """A partition of shards with 1000 values per photo."""
    made = {"architecture": "timm:tiny", "weights": weights, "preprocessing": LOOK}
    partition = EmbeddingPartition(
        url, CacheKey(**made, compute="float32 on cpu", code_fingerprint="m")
    )
    for number in range(n_shards):
        rows = torch.full((n_photos, 1000), float(number))
        partition.add(Shard(hashes(n_photos, number * n_photos), rows))
    partition.touch()
    return partition


def used(partition: EmbeddingPartition, seconds_ago: float):
    then = time.time() - seconds_ago
    os.utime(Path(partition.folder) / "cache_key.json", (then, then))


@pytest.fixture
def url(tmp_path):
    return str(tmp_path / "store")


@pytest.fixture
def three(url):
    """Three partitions; the second was used last, the third never after it was filled."""
    shelves = {name: fill(url, name) for name in ("a", "b", "c")}
    for name, seconds_ago in {"a": 100, "b": 0, "c": 1000}.items():
        used(shelves[name], seconds_ago)
    return shelves


def n_shards(partition: EmbeddingPartition) -> int:
    return len(list(Path(partition.folder).glob("*.safetensors")))


def test_contents_are_sorted_by_the_last_use(url, three):
    found = contents(url)
    assert [partition.cache_key.weights for partition in found] == ["b", "a", "c"]
    assert [count_photos(url, partition) for partition in found] == [30, 30, 30]
    for partition in found:
        sizes = [path.stat().st_size for path in Path(partition.folder).iterdir()]
        assert partition.n_bytes == sum(sizes)


def test_a_photo_in_two_shards_counts_once(url):
    partition = fill(url, "a", n_shards=1)
    partition.add(Shard(hashes(10, first=5), torch.zeros(10, 1000)))
    [found] = contents(url)
    assert count_photos(url, found) == 15


def test_an_empty_store_has_no_contents(url):
    assert contents(url) == []
    assert evict_lru(url, 0) == 0


def test_a_store_within_its_limit_is_not_changed(url, three):
    total = sum(partition.n_bytes for partition in contents(url))
    fill(url, "empty", n_shards=0)
    used(fill(url, "long empty", n_shards=0), 9999)
    before = sorted(Path(url).rglob("*"))
    assert evict_lru(url, total + 10_000) == 0
    assert sorted(Path(url).rglob("*")) == before


def test_what_was_not_used_longest_goes_first_and_never_more_than_needed(url, three):
    total = sum(partition.n_bytes for partition in contents(url))
    shard = max(contents(url)[0].files.values())
    assert evict_lru(url, total - 1) == shard
    assert [n_shards(three[name]) for name in "abc"] == [3, 3, 2]
    left = sum(partition.n_bytes for partition in contents(url))
    freed = evict_lru(url, left - 2.5 * shard)
    assert 2.5 * shard <= freed <= 3 * shard + 1000
    assert [n_shards(three[name]) for name in "abc"] == [2, 3, 0]
    assert not Path(three["c"].folder).exists()


def test_a_limit_of_zero_empties_the_store(url, three):
    total = sum(partition.n_bytes for partition in contents(url))
    assert evict_lru(url, 0) == total
    assert list(Path(url).iterdir()) == []


def test_an_unfinished_shard_counts_and_is_evicted_first(url):
    partition = fill(url, "a")
    part = next(Path(partition.folder).glob("*.safetensors"))
    part = part.with_name(f"{part.name}.0123abcd.part")
    part.write_bytes(bytes(5000))
    total = sum(one.n_bytes for one in contents(url))
    assert evict_lru(url, total - 1) == 5000
    assert not part.exists()
    assert n_shards(partition) == 3


def test_other_files_are_neither_counted_nor_removed(url):
    fill(url, "a")
    others = [Path(url) / "notes" / "cache_key.json", Path(url) / ("0" * 64) / "mine.txt"]
    for other in others:
        other.parent.mkdir()
        other.write_text("mine")
    assert len(contents(url)) == 1
    evict_lru(url, 0)
    assert sorted(path for path in Path(url).rglob("*") if path.is_file()) == sorted(others)


def test_a_shard_that_another_process_adds_meanwhile_stays(url, monkeypatch):
    partition = fill(url, "a", n_shards=1)
    folder = Path(partition.folder)
    local = fsspec.filesystem("file")
    remove = local.rm_file

    def remove_while_another_adds(path):
        partition.add(Shard(hashes(1, first=99), torch.ones(1, 1000)))
        remove(path)

    monkeypatch.setattr(local, "rm_file", remove_while_another_adds, raising=False)
    evict_lru(url, 0)
    monkeypatch.undo()
    assert [shard.photos for shard in partition.read(hashes(1, first=99))] == [hashes(1, first=99)]
    assert len(list(folder.iterdir())) == 1
    [found] = contents(url)  # without a cache_key.json, but still listed and evicted
    assert found.cache_key is None
    assert evict_lru(url, 0) == found.n_bytes


def test_two_evictions_at_once_raise_no_error(url, three, monkeypatch):
    local = fsspec.filesystem("file")
    remove = local.rm_file

    def remove_twice(path):
        os.unlink(path)
        remove(path)

    monkeypatch.setattr(local, "rm_file", remove_twice, raising=False)
    total = sum(partition.n_bytes for partition in contents(url))
    assert evict_lru(url, 0) == total


@pytest.mark.parametrize("text", ["", "{}", '{"format": 99}', "\x00"])
def test_a_cache_key_of_another_version_is_no_error(url, three, text):
    (Path(three["a"].folder) / "cache_key.json").write_text(text)
    assert {
        partition.cache_key.weights if partition.cache_key else "" for partition in contents(url)
    } == {*("", "b", "c")}
    assert sum(len(shard.photos) for shard in three["a"].read(hashes(30))) == 30
    evict_lru(url, 0)
    assert contents(url) == []


def test_a_remote_store_is_evicted_too():
    url = "memory://room/rows"
    fill(url, "a")
    fill(url, "b")
    first, last = contents(url)
    assert (first.cache_key.weights, last.cache_key.weights) == ("b", "a")
    assert evict_lru(url, first.n_bytes) == last.n_bytes
    assert [partition.cache_key.weights for partition in contents(url)] == ["b"]
    evict_lru(url, 0)
    assert contents(url) == []
