"""The embedding store: each photo is computed once, also after failures of the disk."""

import errno
import json
import logging
import multiprocessing
import os
import re
import shutil
import signal
import sys
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import fsspec
import pytest
import torch
from fsspec.implementations.memory import MemoryFileSystem
from safetensors.torch import load_file, save_file
from test_files import full_disk

from regraft.core.config import EmbedConfig
from regraft.core.errors import UnusablePhoto
from regraft.model.embed import (
    NO_STORE,
    Compute,
    contents,
    embed,
    embedding,
    spec_for,
    try_embeddings_for,
)
from regraft.model.pixels import photos_of

pytestmark = pytest.mark.usefixtures("prepared_once")
FP32 = Compute(torch.device("cpu"), torch.float32)
BF16 = Compute(torch.device("cpu"), torch.bfloat16)
PHOTO = (3, 32, 32)  # not the random photo of 96 pixels of prepared()
# The package exports a function of the same name.


@contextmanager
def counted():
    """Return a list that gets the size of each batch of the first convolution."""
    passed = []

    def count(module, inputs, output):
        if isinstance(module, torch.nn.Conv2d) and inputs[0].shape[1:] == PHOTO:
            passed.append(len(output))

    hook = torch.nn.modules.module.register_module_forward_hook(count)
    try:
        yield passed
    finally:
        hook.remove()


def passing(start, photos, config, compute=FP32):
    """Return the rows, and the number of photos that were computed."""
    with counted() as passed:
        rows = embed(start, photos, compute, config).all()
    return rows, sum(passed)


@pytest.fixture
def photos(splits):
    return photos_of(splits.frame)


@pytest.fixture(scope="module")
def expected(start, splits):
    """The rows of the thirty photos, computed without a store in batches of four."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(embedding, "BATCH_SIZE", 4)
        return embed(start, photos_of(splits.frame), FP32, NO_STORE).all()


@pytest.fixture
def config(tmp_path):
    return EmbedConfig(store_url=str(tmp_path / "store of [rows]"))


@pytest.fixture
def small(monkeypatch):
    """Shards of four photos, from batches of four."""
    monkeypatch.setattr(embedding, "BATCH_SIZE", 4)
    monkeypatch.setattr(embedding, "SHARD_PHOTOS", 4)


@pytest.fixture
def warnings(caplog):
    caplog.set_level(logging.INFO, "regraft.embed")

    def warnings() -> list[str]:
        return [one.getMessage() for one in caplog.records if one.levelname == "WARNING"]

    return warnings


def shards(config) -> list[Path]:
    return sorted(Path(config.store_url).glob("*/*.safetensors"))


def files(config) -> list[str]:
    return sorted(path.name for path in Path(config.store_url).rglob("*") if path.is_file())


def near(rows, others):
    torch.testing.assert_close(rows, others, atol=1e-5, rtol=1e-5)


def test_a_second_call_computes_nothing_and_gives_the_same_bits(start, photos, config, caplog):
    caplog.set_level(logging.INFO, "regraft.embed")
    first, n_first = passing(start, photos, config)
    second, n_second = passing(start, photos, config)
    assert (n_first, n_second) == (30, 0)
    assert torch.equal(first, second)
    counts = [re.findall(r"\b\d+\b", one.getMessage()) for one in caplog.records]
    assert counts == [["30", "0", "30"], ["30", "30", "0"]]  # photos, stored, new
    assert all(f"({FP32})" in one.getMessage() for one in caplog.records)


def test_rows_are_what_they_are_without_a_store(start, photos, config, expected):
    near(passing(start, photos, config)[0], expected)
    near(passing(start, photos[::-1], config)[0], expected.flip(0))


def test_only_new_photos_pass(start, photos, config, expected):
    assert passing(start, photos[:27], config)[1] == 27
    rows, n_passed = passing(start, photos, config)
    assert n_passed == 3
    near(rows, expected)
    assert passing(start, photos[5:29:2], config)[1] == 0


def test_a_photo_is_known_by_its_content_wherever_it_lies(start, photos, config, tmp_path):
    rows, _ = passing(start, photos[:2], config)
    moved = shutil.copy(photos[1].path, tmp_path / "another name.png")
    again, n_passed = passing(start, [photos[1]._replace(path=str(moved))], config)
    assert n_passed == 0
    assert torch.equal(again[0], rows[1])


def test_a_known_photo_need_not_be_there_any_more(start, photos, config):
    passing(start, photos[:2], config)
    gone = [photo._replace(path="/nowhere.png") for photo in photos[:2]]
    assert passing(start, gone, config)[1] == 0


def other_weights(start):
    name = next(name for name in start.weights if name.endswith("conv_stem.weight"))
    return replace(start, weights=start.weights | {name: start.weights[name] * 1.01})


def other_preprocessing(start):
    info = start.card.backbone
    other = info.preprocessing.model_copy(update={"resize": 40})
    return start.with_card(backbone=info.model_copy(update={"preprocessing": other}))


@pytest.mark.parametrize("changed", [other_weights, other_preprocessing])
def test_what_decides_the_numbers_makes_all_photos_new(start, photos, config, changed):
    rows, _ = passing(start, photos[:5], config)
    others, n_passed = passing(changed(start), photos[:5], config)
    assert n_passed == 5
    assert not torch.equal(rows, others)
    assert passing(start, photos[:5], config)[1] == 0


def test_another_head_changes_nothing(start, photos, config):
    passing(start, photos[:5], config)
    head = {"head.bias": torch.ones(3)}
    assert passing(replace(start, weights=start.weights | head), photos[:5], config)[1] == 0


def test_another_precision_makes_all_photos_new(start, photos, config):
    passing(start, photos[:5], config)
    rows, n_passed = passing(start, photos[:5], config, BF16)
    assert n_passed == 5
    kept, n_passed = passing(start, photos[:5], config, BF16)
    assert n_passed == 0
    assert kept.dtype == torch.bfloat16
    assert torch.equal(kept, rows)


def test_other_code_makes_all_photos_new(start, photos, config, monkeypatch):
    passing(start, photos[:5], config)
    monkeypatch.setattr(embedding, "embedding_code_fingerprint", lambda: "other code")
    assert passing(start, photos[:5], config)[1] == 5


def test_the_fingerprint_covers_the_code_files_and_the_libraries(monkeypatch):
    cache_key = sys.modules["regraft.model.embed.cache_key"]
    before = cache_key.embedding_code_fingerprint()
    assert cache_key.embedding_code_fingerprint() == before
    monkeypatch.setattr(cache_key, "CODE_FILES", cache_key.CODE_FILES[1:])
    other = cache_key.embedding_code_fingerprint()
    monkeypatch.setattr(cache_key, "LIBRARIES", cache_key.LIBRARIES[1:])
    assert len({before, other, cache_key.embedding_code_fingerprint()}) == 3


def in_a_process(work, *arguments):
    """Run the work in another process, forked so that it need not import torch again."""
    process = multiprocessing.get_context("fork").Process(target=work, args=arguments)
    process.start()
    return process


def test_two_writers_at_once_end_with_whole_shards_and_right_rows(
    start, photos, config, expected, small, warnings
):
    halves = (photos[:20], photos[10:], photos[5:25])
    writers = [in_a_process(embed, start, half, FP32, config) for half in halves]
    for writer in writers:
        writer.join(60)
    assert [writer.exitcode for writer in writers] == [0, 0, 0]
    rows, n_passed = passing(start, photos, config)
    assert n_passed == 0
    near(rows, expected)
    assert warnings() == []
    assert not [name for name in files(config) if name.endswith(".part")]


def killed_at_the_fourth_batch(start, photos, config):
    batches = []

    def kill(module, inputs, output):
        if isinstance(module, torch.nn.Conv2d) and inputs[0].shape[1:] == PHOTO:
            batches.append(len(output))
            if len(batches) == 4:
                os.kill(os.getpid(), signal.SIGKILL)

    torch.nn.modules.module.register_module_forward_hook(kill)
    embed(start, photos, FP32, config)


def test_a_killed_writer_leaves_whole_shards_and_the_next_computes_the_rest_only(
    start, photos, config, expected, small, warnings
):
    writer = in_a_process(killed_at_the_fourth_batch, start, photos, config)
    writer.join(60)
    assert writer.exitcode == -signal.SIGKILL
    assert len(shards(config)) == 3
    rows, n_passed = passing(start, photos, config)
    assert n_passed == 30 - 12
    near(rows, expected)
    assert warnings() == []


def flip_a_bit(path: Path):
    data = bytearray(path.read_bytes())
    data[-997] ^= 64  # in the exponent of a value
    path.write_bytes(data)


def truncate(path: Path):
    path.write_bytes(path.read_bytes()[:-10])


def truncate_in_the_head(path: Path):
    path.write_bytes(path.read_bytes()[:100])


def empty(path: Path):
    path.write_bytes(b"")


def swap_rows(path: Path):
    tensors = load_file(path)
    swapped = {"rows": tensors["rows"].flip(0).contiguous()}
    save_file(swapped, path, {"hashes": head_of(path)["hashes"]})


def swap_photos(path: Path):
    cache_key, *photos = head_of(path)["hashes"].split()
    save_file(load_file(path), path, {"hashes": " ".join((cache_key, *reversed(photos)))})


def write_something_else(path: Path):
    path.write_bytes((2).to_bytes(8, "little") + b"[]")


def head_of(path: Path) -> dict:
    data = path.read_bytes()
    return json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]


@pytest.mark.parametrize(
    "damage",
    [
        *(flip_a_bit, truncate, truncate_in_the_head, empty),
        *(swap_rows, swap_photos, write_something_else),
    ],
)
def test_a_damaged_shard_is_noticed_said_removed_and_computed_again(
    start, photos, config, expected, small, warnings, damage
):
    passing(start, photos[:12], config)
    before = {path: path.read_bytes() for path in shards(config)}
    damaged = shards(config)[1]
    damage(damaged)
    rows, n_passed = passing(start, photos[:12], config)
    assert n_passed == 4
    near(rows, expected[:12])
    [warning] = warnings()
    assert re.search(rf"^embed: .* {re.escape(str(damaged))} \(.+\)", warning)
    assert damaged.read_bytes() == before[damaged]  # removed and written again
    assert passing(start, photos[:12], config)[1] == 0
    assert {path: path.read_bytes() for path in shards(config)} == before  # the same bytes


def test_a_shard_of_another_cache_key_is_not_read(start, photos, config, warnings):
    passing(start, photos[:5], config, BF16)
    [foreign] = shards(config)
    rows, _ = passing(start, photos[5:6], config)
    [own] = [path for path in shards(config) if path != foreign]
    shutil.copy(foreign, own.parent)
    again, n_passed = passing(start, photos[:6], config)
    assert n_passed == 5
    assert again.dtype == torch.float32
    assert torch.equal(again[5:], rows)
    [warning] = warnings()
    assert str(own.parent / foreign.name) in warning
    assert foreign.exists()
    assert len(shards(config)) == 3


def test_a_full_disk_ends_no_run_and_harms_no_shard(start, photos, config, expected, warnings):
    passing(start, photos[:10], config)
    before = files(config)
    with full_disk():
        rows, n_passed = passing(start, photos, config)
    assert n_passed == 20
    near(rows, expected)
    [warning] = warnings()
    problem = re.escape(os.strerror(errno.EFBIG))
    assert re.search(rf"\b20\b.* {re.escape(config.store_url)} \({problem}\)", warning)
    assert files(config) == before
    assert passing(start, photos, config)[1] == 20


def test_a_store_that_cannot_be_written_ends_no_run(start, photos, config, warnings):
    Path(config.store_url).write_text("a file stands where the folder should")
    rows, n_passed = passing(start, photos[:5], config)
    assert n_passed == 5
    assert rows.shape == (5, 256)
    assert re.search(rf"\b5\b.* {re.escape(config.store_url)}[ /]", warnings()[-1])


def test_a_damaged_shard_that_cannot_be_removed_is_not_read(
    start, photos, config, expected, warnings, monkeypatch
):
    passing(start, photos, config)
    flip_a_bit(shards(config)[0])
    local = fsspec.filesystem("file")

    def refuse(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(local, "rm_file", refuse, raising=False)
    rows, n_passed = passing(start, photos, config)
    assert n_passed == 30
    near(rows, expected)
    assert "(Permission denied)" in warnings()[1]
    assert str(shards(config)[0]) in warnings()[1]


def test_a_shard_that_another_process_removes_meanwhile_is_computed(
    start, photos, config, expected, small, warnings, monkeypatch
):
    """An eviction by another process, between reading the headers and reading the rows."""
    passing(start, photos[:28], config)
    store = sys.modules["regraft.model.embed.store"]
    listed = store._listed

    def evicted(folder):
        found = list(listed(folder))
        os.unlink(found[0][0])
        yield from found

    monkeypatch.setattr(store, "_listed", evicted)
    rows, n_passed = passing(start, photos[:28], config)
    assert n_passed == 4
    near(rows, expected[:28])
    assert warnings() == []


def test_rows_stay_readable_when_their_shard_is_removed(start, photos, config, expected):
    rows = embed(start, photos, FP32, config)
    shutil.rmtree(config.store_url)
    near(rows.all(), expected)


def test_only_shards_that_are_asked_for_are_read(start, photos, config, small, warnings):
    rows, _ = passing(start, photos, config)
    spec = spec_for(start, FP32)
    assert len(try_embeddings_for(spec, photos, config).rows.parts) == 8
    assert len(try_embeddings_for(spec, photos[:1], config).rows.parts) == 1
    holder = [path for path in shards(config) if photos[0].sha256 in head_of(path)["hashes"]]
    for path in set(shards(config)) - set(holder):
        flip_a_bit(path)  # only reading the whole shard detects it
    again, n_passed = passing(start, photos[:1], config)
    assert n_passed == 0
    assert torch.equal(again, rows[:1])
    assert warnings() == []


class Listed(MemoryFileSystem):
    """A remote file system with a cache of its listings, like most."""

    protocol = "listed"
    seen: dict = {}  # noqa: RUF012 - stands for the network: shared by all instances

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(path.replace("listed://", "memory://"))

    def ls(self, path, detail=True, **options):
        if path not in self.seen:
            self.seen[path] = super().ls(path, detail=True, **options)
        return self.seen[path] if detail else [one["name"] for one in self.seen[path]]

    def invalidate_cache(self, path=None):
        self.seen.clear()


@pytest.fixture
def remote():
    fsspec.register_implementation("listed", Listed, clobber=True)
    yield EmbedConfig(store_url="listed://bucket/rows")
    MemoryFileSystem.store.clear()
    MemoryFileSystem.pseudo_dirs[:] = [""]
    Listed.seen.clear()


def test_a_store_behind_a_url_keeps_rows_too(start, photos, expected, warnings):
    url = EmbedConfig(store_url="memory://bucket/rows")
    try:
        assert passing(start, photos[:20], url)[1] == 20
        rows, n_passed = passing(start, photos, url)
        assert n_passed == 10
        near(rows, expected)
        again, n_passed = passing(start, photos, url)
        assert n_passed == 0
        assert torch.equal(again, rows)
        fs = fsspec.filesystem("memory")
        damaged = next(path for path in fs.find("/bucket") if path.endswith(".safetensors"))
        fs.pipe_file(damaged, fs.cat_file(damaged)[:-1])
        near(passing(start, photos, url)[0], expected)
        [warning] = warnings()
        assert damaged in warning
    finally:
        MemoryFileSystem.store.clear()


def test_what_another_machine_has_added_is_seen(start, photos, remote):
    passing(start, photos[:3], remote)
    [partition] = contents(remote.store_url)
    fsspec.filesystem("listed").ls(partition.folder)  # the listing is now in the cache
    passing(start, photos[3:6], remote.model_copy(update={"store_url": "memory://bucket/rows"}))
    assert passing(start, photos[:6], remote)[1] == 0


def test_an_unreachable_store_ends_no_run(start, photos, remote, warnings, monkeypatch):
    def refuse(self, path, *arguments, **options):
        raise ConnectionError("no route to host")

    monkeypatch.setattr(Listed, "ls", refuse)
    monkeypatch.setattr(Listed, "pipe_file", refuse)
    monkeypatch.setattr(Listed, "exists", lambda self, path: False)
    assert passing(start, photos[:3], remote)[1] == 3
    assert re.search(r"/bucket/rows\b.*\(no route to host\)", warnings()[0])


def test_a_failed_eviction_ends_no_run(start, photos, remote, warnings, monkeypatch):
    def refuse(self, path, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Listed, "find", refuse)
    assert passing(start, photos[:3], remote)[1] == 3
    [warning] = warnings()
    assert re.search(r" listed://bucket/rows \(.*Permission denied", warning)


def test_rows_over_the_limit_are_evicted_after_the_run(start, photos, config):
    bounded = config.model_copy(update={"max_gb": 1e-6})  # 1 kB; a row has as much
    rows = embed(start, photos[:5], FP32, bounded)
    assert shards(bounded) == []
    assert rows.all().shape == (5, 256)


def test_a_photo_that_changed_since_it_was_listed_is_not_stored(start, splits, config, tmp_path):
    first, other = photos_of(splits.frame)[:2]
    swapped = first._replace(path=str(shutil.copy(other.path, tmp_path / "changed.png")))
    with pytest.raises(UnusablePhoto, match=r"^changed: .*/changed\.png\b"):
        embed(start, [swapped], FP32, config)
    right, n_passed = passing(start, [first], config)
    assert n_passed == 1
    assert torch.equal(right, embed(start, [first], FP32, NO_STORE).all())
