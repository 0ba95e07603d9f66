"""A training killed at any moment and started again ends where one never killed ends."""

import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import fsspec
import pytest
import torch
from tiny import POLICIES, SETTINGS, keep_the_tuned_phase, splits_of, tuned

from regraft.config import EmbedConfig, FreezeConfig
from regraft.embed import Compute
from regraft.errors import ConfigError
from regraft.freeze import freeze
from regraft.tune import feed, fine_tune, loop, precision
from regraft.tune.arrangement import Arrangement
from regraft.tune.checkpoint import Checkpoint, checkpoint_of

CONFIG = SETTINGS.model_copy(update={"mixup_alpha": 0.2, "patience": 0})

# Dies in the second epoch, at its second step, as by power failure.
KILLED = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
import pandas as pd
from tiny import *
from regraft.tune import loop
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
    """Nothing that any code of ours could catch."""


@pytest.fixture(autouse=True)
def tuned_is_kept_and_every_epoch_saved(monkeypatch):
    keep_the_tuned_phase(monkeypatch)
    monkeypatch.setattr(loop, "SAVING_SHARE", 1e9)


@pytest.fixture(scope="module", autouse=True)
def killed(splits, weights_path, tmp_path_factory):
    """A process of its own that trains and dies, and the folder of its checkpoints."""
    folder = tmp_path_factory.mktemp("killed")
    splits.frame.to_csv(folder / "frame.csv")
    settings = with_url(folder / "checkpoints").model_dump_json()
    arguments = [Path(__file__).parent, weights_path, folder / "frame.csv", settings]
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, *map(str, arguments)], stderr=subprocess.PIPE, text=True
    ) as process:
        yield process, folder / "checkpoints"
        process.kill()


@pytest.fixture(scope="module")
def uninterrupted(start, splits):
    with pytest.MonkeyPatch.context() as patch:
        keep_the_tuned_phase(patch)
        challenger = tuned(start, splits, config=CONFIG)
    assert challenger.kept_phase == "tune"
    return challenger


@pytest.fixture
def memory():
    filesystem = fsspec.filesystem("memory")
    yield filesystem
    filesystem.store.clear()
    filesystem.pseudo_dirs[:] = [""]


@pytest.fixture
def epochs_trained(monkeypatch):
    """The epochs that were really trained, and whether gradients reached the backbone."""
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
    ("phase", "epoch", "left"), [("head", 1, [1, 2, 3]), ("tune", 1, [2, 3]), ("tune", 3, [])]
)
def test_an_interrupted_training_ends_with_the_same_weights(
    start, splits, uninterrupted, epochs_trained, tmp_path, phase, epoch, left
):
    config = with_url(tmp_path / "check points")
    with pytest.raises(PowerFailure):
        tuned(start, splits, config=config, log=fail_after(phase, epoch))
    epochs_trained.clear()
    torch.manual_seed(99)
    same_training(tuned(start, splits, config=config), uninterrupted)
    assert epochs_trained == [(number, True) for number in left]


def test_a_resumed_training_tells_its_log_the_whole_story(start, splits, tmp_path):
    config, told = with_url(tmp_path), []
    with pytest.raises(PowerFailure):
        tuned(start, splits, config=config, log=fail_after("tune", 2))
    challenger = tuned(start, splits, config=config, log=told.append)
    assert [(r.phase, r.epoch) for r in told] == [
        ("head", 1),
        ("tune", 1),
        ("tune", 2),
        ("tune", 3),
    ]
    assert len(challenger.history) == 4


def test_checkpoints_may_lie_in_any_store_and_leave_no_trace(
    start, splits, uninterrupted, epochs_trained, memory
):
    config = with_url("memory://runs/checkpoints")
    with pytest.raises(PowerFailure):
        tuned(start, splits, config=config, log=fail_after("tune", 2))
    assert len(memory.ls("/runs/checkpoints")) == 2
    epochs_trained.clear()
    same_training(tuned(start, splits, config=config), uninterrupted)
    assert epochs_trained == [(3, True)]
    assert memory.find("/runs") == []


def test_nothing_is_written_without_a_place(start, splits, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tuned(start, splits, config=CONFIG)
    assert list(tmp_path.iterdir()) == []


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
    start, splits, uninterrupted, epochs_trained, tmp_path
):
    config = with_url(tmp_path)
    with pytest.raises(PowerFailure):
        tuned(start, splits, config=config, log=fail_after("tune", 2))
    (path,) = tmp_path.glob("*-tune.pt")
    path.write_bytes(path.read_bytes()[:-9])
    epochs_trained.clear()
    same_training(tuned(start, splits, config=config), uninterrupted)
    assert [epoch for epoch, _ in epochs_trained] == [1, 2, 3]


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


def test_another_training_has_another_checkpoint(start, splits):
    plan = freeze(start, POLICIES["last_block"])
    own = checkpoint_of(start, plan, splits, CONFIG)
    changed = [{"lr": 0.02}, {"seed": 1}, {"epochs": 4}, {"batch_size": 4}, {"precision": "bf16"}]
    others = [
        checkpoint_of(start, plan, splits, CONFIG.model_copy(update=change)) for change in changed
    ]
    slower = freeze(start, FreezeConfig(policy="last_block", layer_decay=0.5))
    others += [
        checkpoint_of(start, slower, splits, CONFIG),
        checkpoint_of(start.with_card(temperature=2.0), plan, splits, CONFIG),
        checkpoint_of(start, plan, splits_of(splits.frame[1:]), CONFIG),
    ]
    assert len({own.key, *(other.key for other in others)}) == len(others) + 1
    assert checkpoint_of(start, plan, splits, with_url("/elsewhere")).key == own.key


def test_a_changed_setting_does_not_resume_from_the_other_training(
    start, splits, epochs_trained, tmp_path
):
    with pytest.raises(PowerFailure):
        tuned(start, splits, config=with_url(tmp_path), log=fail_after("tune", 2))
    epochs_trained.clear()
    changed = with_url(tmp_path).model_copy(update={"lr": 0.02})
    tuned(start, splits, config=changed)
    assert [epoch for epoch, _ in epochs_trained] == [1, 2, 3]


def test_a_training_killed_within_an_epoch_ends_with_the_same_weights(
    start, splits, uninterrupted, epochs_trained, killed
):
    """A real kill -9; this test stands last, since the process has run beside the others."""
    process, folder = killed
    _, complaint = process.communicate()
    assert process.returncode == -9, complaint
    assert len(list(folder.iterdir())) == 2
    same_training(tuned(start, splits, config=with_url(folder)), uninterrupted)
    assert epochs_trained == [(2, True), (3, True)]


def test_saving_takes_its_share_of_the_time_and_no_more(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "SAVING_SHARE", 0.1)
    progress = loop.Progress(
        *(torch.nn.Linear(1, 1),) * 4, Arrangement(torch.float32, ""), torch.device("cpu")
    )
    checkpoint, saved = Checkpoint(str(tmp_path), "key"), []
    for since_s, took_s in ((None, 0.0), (5.0, 1.0), (15.0, 1.0)):
        if since_s:
            progress.saved_at, progress.saving_s = time.monotonic() - since_s, took_s
        progress.epoch += 1
        loop._save(progress, checkpoint)
        saved.append(checkpoint.load()["epoch"])
    assert saved == [1, 1, 3]


LAST_BLOCK = SETTINGS.model_copy(update={"patience": 0, "precision": "auto"})


def trained_as(start, splits, config, log=lambda _: None, **places):
    plan = freeze(start, POLICIES["last_block"])
    return fine_tune(start, plan, splits, config, log, EmbedConfig(**places)).trained_as


def with_free_disk(monkeypatch, n_bytes):
    monkeypatch.setattr(feed.shutil, "disk_usage", lambda _: SimpleNamespace(free=n_bytes))


@pytest.fixture
def interrupted(start, splits, tmp_path, monkeypatch):
    """Settings and store of a training in bf16 that ended before its first epoch did."""
    config = LAST_BLOCK.model_copy(update={"checkpoint_url": str(tmp_path / "checkpoints")})
    store = {"store_url": str(tmp_path / "store")}
    bf16 = Compute(torch.device("cpu"), torch.bfloat16)
    for room in ("fine_tune", "checkpoint"):
        monkeypatch.setattr(sys.modules[f"regraft.tune.{room}"], "choose_compute", lambda _: bf16)
    monkeypatch.setattr(precision, "FEWEST_STEPS", 1)
    monkeypatch.setattr(precision, "WORTH_IT", 0.0)
    with monkeypatch.context() as patch, pytest.raises(PowerFailure):  # noqa: PT012
        patch.setattr(loop, "_train_epoch", fail_now)
        trained_as(start, splits, config, **store)
    return config, store


def fail_now(*_):
    raise PowerFailure


def test_an_interrupted_training_goes_on_as_it_was_arranged(
    start, splits, interrupted, monkeypatch
):
    config, store = interrupted
    monkeypatch.setattr(precision, "WORTH_IT", 1e9)  # a trial would choose fp32 now
    said = trained_as(start, splits, config, **store)
    assert said == "bfloat16 steps, the frozen part once a view"


def test_an_interrupted_training_without_room_waits_for_it(start, splits, interrupted, monkeypatch):
    config, store = interrupted
    with monkeypatch.context() as patch:
        with_free_disk(patch, 0)
        with pytest.raises(ConfigError, match=r"began, but its values need .* GB and there are 0"):
            trained_as(start, splits, config, **store)
    assert trained_as(start, splits, config, **store).startswith("bfloat16")


def test_without_room_the_frozen_part_runs_in_each_epoch(start, splits, tmp_path, monkeypatch):
    store = {"store_url": str(tmp_path / "store")}
    with_free_disk(monkeypatch, 1000)
    assert "on the disk of" in trained_as(start, splits, LAST_BLOCK, **store)
    budget = trained_as(start, splits, LAST_BLOCK, **store, max_gb=1e-6)
    assert budget.endswith("GB and there are 0.0 within embed.max_gb")
    with_free_disk(monkeypatch, 10**12)
    assert trained_as(start, splits, LAST_BLOCK, **store).endswith("the frozen part once a view")
    with_free_disk(monkeypatch, 0)  # what is kept already needs none
    assert trained_as(start, splits, LAST_BLOCK, **store).endswith("the frozen part once a view")


@pytest.mark.parametrize("kind", ["none", "url", "not writable"])
def test_values_that_lie_in_memory_have_its_room_only(
    start, splits, memory, tmp_path, monkeypatch, kind
):
    monkeypatch.setattr(feed, "IN_MEMORY_GB", 1e-6)
    (tmp_path / "file").write_bytes(b"")
    place = {"none": "", "url": "memory://values", "not writable": str(tmp_path / "file" / "x")}
    said = trained_as(start, splits, LAST_BLOCK, store_url=place[kind])
    assert said.endswith("GB and there are 0.0 in memory")


def test_a_checkpoint_that_cannot_be_written_does_not_end_the_training(
    start, splits, uninterrupted, tmp_path, caplog
):
    (tmp_path / "file").write_bytes(b"")
    with caplog.at_level("WARNING", "regraft.fine_tune"):
        same_training(tuned(start, splits, config=with_url(tmp_path / "file")), uninterrupted)
    assert "cannot be written" in caplog.text
