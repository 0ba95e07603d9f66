"""A disk that is full at any stage of a training is code 7, and the same command resumes."""

import shutil
import subprocess

import pytest
from tiny_challenger import draw_photos, weights_file
from tiny_train import NAME, SETTINGS, World

from tests.pipeline.conftest import copy_of, one_thread, reset_zenml
from tests.pipeline.test_remote_tracking import run
from tests.unit.test_disk import small_disk

pytestmark = [pytest.mark.pipeline, pytest.mark.slow]

KIB = 1024
# Free bytes at the start: a run of this size writes about 2 MiB in its stages.
SPACES = (16 * KIB, 200 * KIB, 500 * KIB, 900 * KIB, 1300 * KIB)


def test_a_full_disk_at_any_stage_is_7_and_more_space_resumes(template, tmp_path, monkeypatch):
    world = World(tmp_path / "world")
    draw_photos(world.photos, 20)
    weights_file(world.weights)
    settings = (f"backbone.source=file:{world.weights}", *SETTINGS)
    options = [word for setting in settings for word in ("--set", setting)]
    size = sum(path.stat().st_size + 8 * KIB for path in template.rglob("*"))
    with small_disk(tmp_path / "disk", size + 8 * KIB * KIB) as disk, one_thread():
        state = copy_of(template, disk / "state", monkeypatch)
        arguments = ("train", str(world.photos), "--model", NAME, *options)
        for space in SPACES:
            usage = shutil.disk_usage(disk)
            resize(disk, usage.used + space)
            code, out, err = run(*arguments, "--state", str(state.root))
            last = err.splitlines()[-1]
            assert (code, out) == (7, ""), (space, err)
            assert last.startswith(("DiskFull: ", "StateError: ")), (space, err)
            assert str(disk) in last, (space, err)
            assert "Traceback" not in err
        resize(disk, 64 * KIB * KIB)
        code, out, err = run(*arguments, "--state", str(state.root))
        assert code == 0, err
        assert f"{NAME} v1 @champion" in out
    reset_zenml()


def resize(disk, n_bytes: int):
    options = f"remount,size={-(-n_bytes // 4096) * 4096}"
    subprocess.run(["mount", "-o", options, str(disk)], check=True, timeout=10)
