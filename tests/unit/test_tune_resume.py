"""A training that is killed and started again ends with the weights of an uninterrupted one."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from types import SimpleNamespace

import fsspec
import pytest
import torch
from test_state import ended, forked
from tiny import POLICIES, SETTINGS, keep_the_tuned_phase, splits_of, tuned

from regraft.core.config import EmbedConfig, FreezeConfig
from regraft.core.errors import ConfigError
from regraft.model.embed import Compute
from regraft.model.freeze import freeze, set_modes
from regraft.training.tune import batch_source, fine_tune, loop, precision
from regraft.training.tune.boundary import cut
from regraft.training.tune.checkpoint import Checkpoint, checkpoint_for
from regraft.training.tune.training_setup import TrainingSetup

pytestmark = pytest.mark.usefixtures("prepared_once")

CONFIG = SETTINGS.model_copy(update={"epochs": 2, "mixup_alpha": 0.2, "patience": 0})

# Ends without cleanup at the second step of the second epoch.
KILLED = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
import pandas as pd
from tiny import *
from regraft.training.tune import loop
from pytest import MonkeyPatch
keep_the_tuned_phase(MonkeyPatch())
step = loop._step
def deadly(progress, loss, config, where):
    step(progress, loss, config, where)
    if where == "epoch 2, step 2":
        os.kill(os.getpid(), signal.SIGKILL)
loop._step = deadly
loop.SAVING_SHARE = 1e9
splits = splits_of(pd.read_csv(sys.argv[3], dtype=str, index_col=0))
config = TuneConfig.model_validate_json(sys.argv[4])
tuned(classifier_of(sys.argv[2]), splits, "last_block", config)
"""


class PowerFailure(BaseException):
    """An exception that product code cannot catch."""


def keep_tuned_and_save_each_epoch(patch):
    keep_the_tuned_phase(patch)
    patch.setattr(loop, "SAVING_SHARE", 1e9)


@pytest.fixture(autouse=True)
def tuned_is_kept_and_every_epoch_saved(monkeypatch):
    keep_tuned_and_save_each_epoch(monkeypatch)


@pytest.fixture(scope="module")
def working_folder(tmp_path_factory):
    """The working folder of `uninterrupted`, empty before."""
    return tmp_path_factory.mktemp("working folder")


@pytest.fixture(scope="module")
def uninterrupted(start, splits, working_folder):
    """A training that was never killed, without checkpoints; read-only."""
    with pytest.MonkeyPatch.context() as patch:
        keep_tuned_and_save_each_epoch(patch)
        patch.chdir(working_folder)
        challenger = tuned(start, splits, config=CONFIG)
    assert challenger.selected_phase == "tune"
    return challenger


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Like tuned(), with a store for all tests of the file."""
    store = EmbedConfig(store_url=str(tmp_path_factory.mktemp("store")))

    def train(start, splits, config, log=lambda record: None):
        return fine_tune(start, freeze(start, POLICIES["last_block"]), splits, config, log, store)

    return train


@pytest.fixture(scope="module")
def after_an_epoch(start, splits, trained, tmp_path_factory):
    """The checkpoints of a training that was interrupted after its first epoch; to be copied."""
    folder = tmp_path_factory.mktemp("after an epoch")
    with pytest.MonkeyPatch.context() as patch:
        keep_tuned_and_save_each_epoch(patch)
        with pytest.raises(PowerFailure):
            trained(start, splits, with_url(folder), fail_after("tune", 1))
    return folder


@pytest.fixture
def checkpoints(after_an_epoch, tmp_path):
    return shutil.copytree(after_an_epoch, tmp_path / "check points")


@pytest.fixture
def memory():
    filesystem = fsspec.filesystem("memory")
    yield filesystem
    filesystem.store.clear()
    filesystem.pseudo_dirs[:] = [""]


@pytest.fixture
def epochs_trained(monkeypatch):
    """The epochs that were trained, and whether gradients reached the backbone."""
    trained = []
    original = loop._train_epoch

    def spied(progress, *given):
        outcome = original(progress, *given)
        gradient = progress.network.backbone.blocks[4][0].conv_pw.weight.grad
        trained.append((progress.epoch, float(gradient.abs().sum()) > 0))
        return outcome

    monkeypatch.setattr(loop, "_train_epoch", spied)
    return trained


def with_url(url):
    return CONFIG.model_copy(update={"checkpoint_url": str(url)})


def fail_after(phase, epoch):
    def log(record):
        if (record.phase, record.epoch) == (phase, epoch):
            raise PowerFailure

    return log


def same_training(one, other):
    assert one.classifier.content_hash == other.classifier.content_hash
    columns = [name for name in one.history if name != "seconds"]
    assert one.history[columns].equals(other.history[columns])
    assert one.audit == other.audit


@pytest.mark.parametrize(
    ("phase", "epoch", "left"),
    [("head", 1, [1, 2]), ("tune", 1, [2]), ("tune", 2, [])],
)
def test_an_interrupted_training_ends_with_the_same_weights(
    start, splits, trained, uninterrupted, epochs_trained, tmp_path, phase, epoch, left
):
    config = with_url(tmp_path / "check points")
    with pytest.raises(PowerFailure):
        trained(start, splits, config, fail_after(phase, epoch))
    epochs_trained.clear()
    torch.manual_seed(99)
    same_training(trained(start, splits, config), uninterrupted)
    assert epochs_trained == [(number, True) for number in left]


def test_a_resumed_training_logs_all_epochs(
    start, splits, trained, uninterrupted, epochs_trained, checkpoints
):
    told = []
    challenger = trained(start, splits, with_url(checkpoints), told.append)
    assert epochs_trained == [(2, True)]
    same_training(challenger, uninterrupted)
    assert [(r.phase, r.epoch) for r in told] == [
        ("head", 1),
        ("tune", 1),
        ("tune", 2),
    ]
    assert len(challenger.history) == 3


def test_checkpoints_may_lie_in_any_store_and_leave_no_trace(
    start, splits, trained, uninterrupted, epochs_trained, memory
):
    config = with_url("memory://runs/checkpoints")
    with pytest.raises(PowerFailure):
        trained(start, splits, config, fail_after("tune", 1))
    assert len(memory.ls("/runs/checkpoints")) == 2
    epochs_trained.clear()
    same_training(trained(start, splits, config), uninterrupted)
    assert epochs_trained == [(2, True)]
    assert memory.find("/runs") == []


def test_without_a_checkpoint_url_nothing_is_written(uninterrupted, working_folder):
    assert list(working_folder.iterdir()) == []


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: b"no checkpoint",
        lambda data: data[:40],
        lambda data: data[: len(data) // 2],
        lambda data: data[:-1],
        lambda data: data[:-500] + bytes([data[-500] ^ 1]) + data[-499:],
        lambda data: bytes(len(data)),
    ],
    ids=["empty", "text", "head only", "half", "one byte less", "one bit flipped", "zeros"],
)
def test_a_damaged_checkpoint_is_ignored(tmp_path, damage):
    checkpoint = Checkpoint(str(tmp_path), "key")
    checkpoint.save({"epoch": 3, "weights": {"a": torch.arange(1000.0)}})
    assert checkpoint.load()["epoch"] == 3
    path = tmp_path / "key.pt"
    path.write_bytes(damage(path.read_bytes()))
    assert checkpoint.load() is None


def test_a_training_starts_anew_from_a_damaged_checkpoint(
    start, splits, trained, uninterrupted, epochs_trained, checkpoints
):
    (path,) = checkpoints.glob("*-tune.pt")
    path.write_bytes(path.read_bytes()[:-9])
    same_training(trained(start, splits, with_url(checkpoints)), uninterrupted)
    assert [epoch for epoch, _ in epochs_trained] == [1, 2]


def test_a_write_that_fails_leaves_the_old_state(tmp_path, monkeypatch):
    checkpoint = Checkpoint(str(tmp_path), "key")
    checkpoint.save({"epoch": 1})

    def dies(source, target):
        raise PowerFailure

    monkeypatch.setattr(os, "replace", dies)
    with pytest.raises(PowerFailure):
        checkpoint.save({"epoch": 2})
    assert checkpoint.load() == {"epoch": 1}
    checkpoint.remove()
    assert list(tmp_path.iterdir()) == []


def test_removing_leaves_the_checkpoints_of_others(tmp_path):
    mine, other = Checkpoint(str(tmp_path), "mine"), Checkpoint(str(tmp_path), "other")
    mine.save({"epoch": 1})
    other.save({"epoch": 2})
    mine.remove()
    mine.remove()
    assert (mine.load(), other.load()) == (None, {"epoch": 2})
    Checkpoint(str(tmp_path / "never made"), "key").remove()


def test_two_runs_of_one_training_that_end_at_once_both_end_well(tmp_path):
    def end_well(checkpoint, start):
        start.wait()
        checkpoint.load()
        checkpoint.remove()

    with ThreadPoolExecutor(4) as threads:
        for turn in range(50):
            checkpoint = Checkpoint(str(tmp_path), f"key{turn}")
            checkpoint.save({"epoch": 1})
            start = Barrier(4)
            for ended in [threads.submit(end_well, checkpoint, start) for _ in range(4)]:
                ended.result()
    assert list(tmp_path.iterdir()) == []


def test_another_training_has_another_checkpoint(start, splits):
    plan = freeze(start, POLICIES["last_block"])
    own = checkpoint_for(start, plan, splits, CONFIG)
    changed = [{"lr": 0.02}, {"seed": 1}, {"epochs": 4}, {"batch_size": 4}, {"precision": "bf16"}]
    others = [
        checkpoint_for(start, plan, splits, CONFIG.model_copy(update=change)) for change in changed
    ]
    slower = freeze(start, FreezeConfig(policy="last_block", layer_decay=0.5))
    others += [
        checkpoint_for(start, slower, splits, CONFIG),
        checkpoint_for(start.with_card(temperature=2.0), plan, splits, CONFIG),
        checkpoint_for(start, plan, splits_of(splits.frame[1:]), CONFIG),
    ]
    assert len({own.key, *(other.key for other in others)}) == len(others) + 1
    assert checkpoint_for(start, plan, splits, with_url("/elsewhere")).key == own.key


def test_a_changed_setting_does_not_resume_from_the_other_training(
    start, splits, trained, epochs_trained, checkpoints
):
    trained(start, splits, with_url(checkpoints).model_copy(update={"lr": 0.02}))
    assert [epoch for epoch, _ in epochs_trained] == [1, 2]


def killed_copy(start, splits, weights_path, folder):
    """Return the exit code of a fork of this process that is killed in the second epoch."""
    step = loop._step

    def deadly(progress, loss, config, where):
        step(progress, loss, config, where)
        if where == "epoch 2, step 2":
            os.kill(os.getpid(), signal.SIGKILL)

    def work():
        loop._step = deadly  # in the fork only
        tuned(start, splits, config=with_url(folder))

    return ended(forked(work))


def killed_process(start, splits, weights_path, folder):
    """Return the exit code of a new process that is killed in the same step."""
    frame = folder.with_suffix(".csv")
    splits.frame.to_csv(frame)
    arguments = [Path(__file__).parent, weights_path, frame, with_url(folder).model_dump_json()]
    command = [sys.executable, "-c", KILLED, *map(str, arguments)]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
    return done.returncode


@pytest.mark.parametrize(
    "kill", [killed_copy, pytest.param(killed_process, marks=pytest.mark.slow)]
)
def test_a_training_killed_within_an_epoch_ends_with_the_same_weights(
    start, splits, weights_path, uninterrupted, epochs_trained, tmp_path, kill
):
    """A real kill -9."""
    folder = tmp_path / "checkpoints"
    assert kill(start, splits, weights_path, folder) == -signal.SIGKILL
    assert len(list(folder.iterdir())) == 2
    same_training(tuned(start, splits, config=with_url(folder)), uninterrupted)
    assert epochs_trained == [(2, True)]


def test_saving_takes_a_limited_share_of_the_time(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "SAVING_SHARE", 0.1)
    progress = loop.Progress(
        *(torch.nn.Linear(1, 1),) * 4, TrainingSetup(torch.float32, ""), torch.device("cpu")
    )
    checkpoint, saved = Checkpoint(str(tmp_path), "key"), []
    for since_s, took_s in ((None, 0.0), (5.0, 1.0), (15.0, 1.0)):
        if since_s:
            progress.saved_at, progress.saving_s = time.monotonic() - since_s, took_s
        progress.epoch += 1
        loop._save(progress, checkpoint)
        saved.append(checkpoint.load()["epoch"])
    assert saved == [1, 1, 3]


LAST_BLOCK = SETTINGS.model_copy(update={"epochs": 1, "patience": 0, "precision": "auto"})


def trained_as(start, splits, config, log=lambda _: None, **places):
    plan = freeze(start, POLICIES["last_block"])
    return fine_tune(start, plan, splits, config, log, EmbedConfig(**places)).trained_as


def uncached_reason(start, splits, **places):
    """Return why the frozen part would run in each epoch, "" if it would not; trains nothing."""
    plan = freeze(start, POLICIES["last_block"])
    photos = sys.modules["regraft.training.tune.fine_tune"]._train_data(start, splits)
    compute = Compute(torch.device("cpu"), torch.float32)
    nowhere = Checkpoint("", "")
    store = EmbedConfig(**places)
    given = batch_source.TrainContext(plan, LAST_BLOCK, compute, nowhere, lambda _: None, store)
    network = start.build()
    set_modes(network, plan)
    return batch_source._uncached_reason(cut(network, plan), photos, given)


def with_free_disk(monkeypatch, n_bytes):
    monkeypatch.setattr(batch_source.shutil, "disk_usage", lambda _: SimpleNamespace(free=n_bytes))


def places_below(folder):
    """Return configuration and store of a training with all its files in one folder."""
    config = LAST_BLOCK.model_copy(update={"checkpoint_url": str(folder / "checkpoints")})
    return config, {"store_url": str(folder / "store")}


def take_bf16_where_it_pays(patch):
    bf16 = Compute(torch.device("cpu"), torch.bfloat16)
    for module in ("fine_tune", "checkpoint"):
        patch.setattr(
            sys.modules[f"regraft.training.tune.{module}"], "choose_compute", lambda _: bf16
        )
    patch.setattr(precision, "MIN_STEPS", 1)
    patch.setattr(precision, "MIN_SPEEDUP", 0.0)


def fail_now(*_):
    raise PowerFailure


@pytest.fixture(scope="module")
def begun_in_bf16(start, splits, tmp_path_factory):
    """The files of a training in bf16 that ended before its first epoch; to be copied."""
    folder = tmp_path_factory.mktemp("begun in bf16")
    config, store = places_below(folder)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(PowerFailure):  # noqa: PT012
        keep_tuned_and_save_each_epoch(patch)
        take_bf16_where_it_pays(patch)
        patch.setattr(loop, "_train_epoch", fail_now)
        trained_as(start, splits, config, **store)
    return folder


@pytest.fixture
def interrupted(begun_in_bf16, tmp_path, monkeypatch):
    take_bf16_where_it_pays(monkeypatch)
    return places_below(shutil.copytree(begun_in_bf16, tmp_path / "begun"))


def test_a_resumed_training_keeps_its_training_setup(start, splits, interrupted, monkeypatch):
    config, store = interrupted
    monkeypatch.setattr(precision, "MIN_SPEEDUP", 1e9)  # a new measurement would choose fp32
    assert trained_as(start, splits, config, **store) == str(TrainingSetup(torch.bfloat16, ""))


def test_a_resumed_training_without_free_disk_is_refused_until_there_is_some(
    start, splits, interrupted, monkeypatch
):
    config, store = interrupted
    with monkeypatch.context() as patch:
        with_free_disk(patch, 0)
        settings = r"tune\.cached_views.*embed\.store_url.*embed\.max_gb"
        with pytest.raises(ConfigError, match=rf" 0\.0 on .*{settings}"):
            trained_as(start, splits, config, **store)
    assert trained_as(start, splits, config, **store) == str(TrainingSetup(torch.bfloat16, ""))


def test_without_free_disk_the_frozen_part_runs_in_each_epoch(start, splits, tmp_path, monkeypatch):
    store = {"store_url": str(tmp_path / "store")}
    with_free_disk(monkeypatch, 1000)
    assert uncached_reason(start, splits, **store).endswith(str(tmp_path / "store"))
    assert re.search(
        r" 0\.0 .*embed\.max_gb$", uncached_reason(start, splits, **store, max_gb=1e-6)
    )
    fp32 = LAST_BLOCK.model_copy(update={"epochs": 2, "precision": "fp32"})
    with_free_disk(monkeypatch, 10**12)
    assert uncached_reason(start, splits, **store) == ""
    assert trained_as(start, splits, fp32, **store) == str(TrainingSetup(torch.float32, ""))
    with_free_disk(monkeypatch, 0)  # stored values need no more space
    assert uncached_reason(start, splits, **store) == ""


@pytest.mark.parametrize("kind", ["none", "url", "not writable"])
def test_values_in_memory_are_limited(start, splits, memory, tmp_path, monkeypatch, kind):
    monkeypatch.setattr(batch_source, "IN_MEMORY_GB", 1e-6)
    (tmp_path / "file").write_bytes(b"")
    place = {"none": "", "url": "memory://values", "not writable": str(tmp_path / "file" / "x")}
    said = uncached_reason(start, splits, store_url=place[kind])
    assert said.endswith(" 0.0 in memory")


def test_a_checkpoint_that_cannot_be_written_does_not_end_the_training(
    start, splits, trained, uninterrupted, tmp_path, caplog
):
    (tmp_path / "file").write_bytes(b"")
    with caplog.at_level("WARNING", "regraft.fine_tune"):
        same_training(trained(start, splits, with_url(tmp_path / "file")), uninterrupted)
    assert str(tmp_path / "file") in caplog.text
