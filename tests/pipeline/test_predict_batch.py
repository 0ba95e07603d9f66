"""`regraft predict-batch` on a real ZenML and MLflow: each shard a step, each answer once."""

import hashlib
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pyarrow.dataset
import pytest
from typer.testing import CliRunner

from tests.pipeline.conftest import REPOSITORY
from tests.pipeline.tiny_train import NAME, begin, last_run, output, stages

pytestmark = pytest.mark.pipeline

SHARD = 5


@pytest.fixture
def album(world, tmp_path) -> Path:
    """Fifteen photos in a folder of their own: three shards of five."""
    folder = tmp_path / "Ein Album"
    add(world, folder, range(15))
    return folder


def add(world, folder: Path, numbers: range):
    folder.mkdir(exist_ok=True)
    photos = sorted(world.photos.rglob("*.png"))
    for number in numbers:
        shutil.copyfile(photos[number], folder / f"photo {number:02}.png")


def words(world, *places, out: Path | str, settings: tuple[str, ...] = ()) -> list[str]:
    said = ["predict-batch", *map(str, places), "--out", str(out)]
    said += ["--state", str(world.state.root)]
    for setting in (f"batch.shard_photos={SHARD}", *settings):
        said += ["--set", setting]
    return said


def call(world, *places, out: Path | str, settings: tuple[str, ...] = ()):
    from commands import app

    done = CliRunner().invoke(app, words(world, *places, out=out, settings=settings))
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done


def n_shards_ran() -> int:
    """Of the newest run; all of its steps have to have done something."""
    ran = stages(last_run())
    assert set(ran.values()) == {"completed"}
    return sum(name.startswith("predict_shard") for name in ran)


def table(out: Path | str) -> pd.DataFrame:
    return pd.read_parquet(out).sort_values("path", ignore_index=True)


def state_of(out: Path) -> dict[str, tuple[bytes, int]]:
    """Every file with its bytes and the time it was written."""
    files = (path for path in out.rglob("*") if path.is_file())
    return {str(path): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


def version_of(out: Path, version: int) -> Path:
    return out / f"name={NAME}" / f"version={version}"


def test_every_photo_has_the_answer_that_predict_gives(world, album, tmp_path):
    from commands import app

    out = tmp_path / "out"
    done = call(world, album, out=out)
    assert done.exit_code == 0
    assert f"15 photos labelled by {NAME}/1, 0 of them unreadable: {out}" in done.output
    assert "3 of 3 shards answered now" in done.output
    assert n_shards_ran() == 3
    asked = ["predict", str(album), "--state", str(world.state.root)]
    CliRunner().invoke(app, [*asked, "--out", str(tmp_path / "plain.parquet")])
    plain, batch = pd.read_parquet(tmp_path / "plain.parquet"), table(out)
    columns = [*plain.columns[:1], "sha256", *plain.columns[1:], "shard"]
    assert list(batch.columns) == [*columns, "name", "version", "content"]
    pd.testing.assert_frame_equal(batch[plain.columns], plain, rtol=1e-5)
    assert batch.sha256.tolist() == [
        hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in batch.path
    ]
    assert batch.groupby("shard").size().tolist() == [SHARD] * 3
    arrow = pyarrow.dataset.dataset(out, partitioning="hive").to_table()
    assert arrow.num_rows == 15
    assert set(arrow["version"].to_pylist()) == {1}
    summary = output(last_run(), "predict_summary")
    assert summary.labels == batch.label.value_counts().to_dict()


def test_three_shards_more_run_three_steps_and_none_more_runs_none(world, album, tmp_path):
    out = tmp_path / "out"
    call(world, album, out=out)
    first = state_of(out)
    done = call(world, album, out=out)
    assert n_shards_ran() == 0
    assert "0 of 3 shards answered now" in done.output
    assert state_of(out) == first
    add(world, album, range(15, 30))
    call(world, album, out=out)
    assert n_shards_ran() == 3
    after = state_of(out)
    assert {path: after[path] for path in first} == first
    assert table(out).path.tolist() == sorted(map(str, album.iterdir()))


def test_a_changed_photo_is_answered_again_and_one_that_is_gone_no_longer_counts(
    world, album, tmp_path
):
    out = tmp_path / "out"
    call(world, album, out=out)
    first = state_of(out)
    (album / "photo 03.png").write_bytes(b"no photo")
    (album / "photo 07.png").unlink()
    done = call(world, album, out=out)
    assert n_shards_ran() == 1
    assert "14 photos labelled" in done.output
    assert "1 of them unreadable" in done.output
    assert "2 answers about photos that have gone or changed" in done.output
    after = state_of(out)
    assert {path: after[path] for path in first} == first
    assert len(table(out)) == 16  # an answer that was given stays given
    changed = table(out).query("path.str.endswith('03.png')")
    assert sorted(error[:9] for error in changed.error) == ["", "unreadabl"]


def test_deleted_answers_are_given_again(world, album, tmp_path):
    out = tmp_path / "out"
    call(world, album, out=out)
    before = table(out)
    next(version_of(out, 1).rglob("*.parquet")).unlink()
    call(world, album, out=out)
    assert n_shards_ran() == 1
    pd.testing.assert_frame_equal(table(out), before)


def test_a_new_champion_answers_everything_and_the_old_answers_stay(world, album, tmp_path):
    from regraft import registry

    out = tmp_path / "out"
    call(world, album, out=out)
    first = state_of(out)
    world.train("tune.head_l2=[3.0]", "freeze.policy=probe")
    second = registry.find(world.tracking, NAME, "2")
    registry.set_alias(world.tracking, second, registry.CHAMPION)
    call(world, album, out=out)
    assert n_shards_ran() == 3
    after = state_of(out)
    assert {path: after[path] for path in first} == first
    assert len(table(version_of(out, 2))) == 15
    assert table(out).model.value_counts().to_dict() == {f"{NAME}/1": 15, f"{NAME}/2": 15}
    call(world, album, out=out, settings=("predict.abstain_below=1",))
    assert n_shards_ran() == 3  # another threshold, other answers
    call(world, album, out=out)
    assert n_shards_ran() == 0


def test_a_killed_call_leaves_whole_answers_and_the_next_one_goes_on(world, shell, tmp_path):
    album, out = tmp_path / "Ein Album", tmp_path / "out"
    add(world, album, range(24))
    said = words(world, album, out=out, settings=("batch.shard_photos=2",))
    victim = begin(said, shell, tmp_path)
    until(lambda: len(list(out.rglob("name=*/**/*.parquet"))) > 1, victim)
    victim.send_signal(signal.SIGKILL)
    victim.communicate()
    done = state_of(out)
    answered = [path for path in done if "/name=" in path]
    assert 1 < len(answered) < 12
    assert len(table(out)) == 2 * len(answered)
    call(world, album, out=out, settings=("batch.shard_photos=2",))
    assert n_shards_ran() == 12 - len(answered)
    assert {path: state_of(out)[path] for path in answered} == {p: done[p] for p in answered}
    assert table(out).path.tolist() == sorted(map(str, album.iterdir()))
    from zenml.client import Client

    assert not Client().list_pipeline_runs(status="running").items


def until(is_so, process: subprocess.Popen):
    """Waits, for long where others want the cores too; a process that is in vain is ended."""
    for _ in range(4000):
        if is_so():
            return
        if process.poll() is not None:
            break
        time.sleep(0.05)
    process.kill()
    raise AssertionError(process.communicate())


def test_two_calls_at_once_leave_every_answer_once(world, shell, tmp_path):
    album, out = tmp_path / "Ein Album", tmp_path / "out"
    add(world, album, range(30))
    both = [begin(words(world, album, out=out), shell, tmp_path) for _ in range(2)]
    for process in both:
        told, errors = process.communicate(timeout=200)
        assert process.returncode == 0, errors
        assert "30 photos labelled" in told
    assert table(out).path.tolist() == sorted(map(str, album.iterdir()))
    assert not list((out / "_writing").iterdir())


@pytest.mark.parametrize("n_times", [1, 2])
def test_ctrl_c_ends_it_and_the_same_command_goes_on(world, shell, tmp_path, n_times):
    from zenml.client import Client

    album, out = tmp_path / "Ein Album", tmp_path / "out"
    add(world, album, range(24))
    said = words(world, album, out=out, settings=("batch.shard_photos=2",))
    process = begin(said, shell, tmp_path)
    until(lambda: len(list(out.rglob("name=*/**/*.parquet"))) > 1, process)
    for _ in range(n_times):
        process.send_signal(signal.SIGINT)
        time.sleep(0.05)
    _, errors = process.communicate(timeout=200)
    assert process.returncode == 130
    assert "Ends with the shards under way; Ctrl-C again ends at once." in errors
    n_answered = len(table(out)) // 2
    assert n_answered < 12
    call(world, album, out=out, settings=("batch.shard_photos=2",))
    assert n_shards_ran() == 12 - n_answered
    assert table(out).path.tolist() == sorted(map(str, album.iterdir()))
    assert not Client().list_pipeline_runs(status="running").items


@pytest.mark.parametrize("n_parallel", [1, 2])
def test_a_shard_that_fails_ends_the_run_and_no_other_is_begun(world, album, tmp_path, n_parallel):
    from regraft.errors import StateError

    out, setting = tmp_path / "out", f"batch.n_parallel={n_parallel}"
    add(world, album, range(15, 40))
    out.mkdir()
    (out / "_writing").write_text("I am no folder")
    with pytest.raises(StateError, match=r"Expected to read and write .*what is answered stays"):
        call(world, album, out=out, settings=(setting,))
    ran = stages(last_run())
    assert last_run().status == "failed"
    assert sum(name.startswith("predict_shard") for name in ran) <= n_parallel
    assert "predict_summary" not in ran
    (out / "_writing").unlink()
    call(world, album, out=out, settings=(setting,))
    assert n_shards_ran() == 8
    assert len(table(out)) == 40


def test_photos_of_which_none_can_be_read_end_with_3(world, tmp_path):
    album, out = tmp_path / "album", tmp_path / "out"
    album.mkdir()
    (album / "a.png").write_bytes(b"")
    (album / "b.png").symlink_to("nowhere")
    done = call(world, album, out=out)
    assert done.exit_code == 3
    assert "None of the 2 photos could be read." in done.output
    assert "1 photos could not be opened" in done.output
    reasons = [error.partition(":")[0] for error in table(out).error]
    assert reasons == ["empty file", "missing"]
    assert n_shards_ran() == 1
    call(world, album, out=out)
    assert n_shards_ran() == 0


def test_an_empty_folder_is_told_and_nothing_is_written(world, tmp_path):
    from regraft.errors import NoPhotos

    (tmp_path / "empty").mkdir()
    with pytest.raises(NoPhotos, match=r"Expected photos in .*empty, found none\. Photos are"):
        call(world, tmp_path / "empty", out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_answers_go_behind_a_url_too(world, album, tmp_path):
    import fsspec

    url = "memory://answers"
    call(world, album, out=url)
    assert n_shards_ran() == 3
    call(world, album, out=url)
    assert n_shards_ran() == 0
    fs = fsspec.filesystem("memory")
    read = pyarrow.dataset.dataset("/answers", filesystem=fs, partitioning="hive").to_table()
    assert sorted(read["path"].to_pylist()) == sorted(map(str, album.iterdir()))
    fs.rm("/answers", recursive=True)


def test_several_shards_at_a_time_give_the_same_answers(world, album, tmp_path):
    call(world, album, out=tmp_path / "one")
    call(world, album, out=tmp_path / "two", settings=("batch.n_parallel=3",))
    assert n_shards_ran() == 3
    pd.testing.assert_frame_equal(table(tmp_path / "one"), table(tmp_path / "two"))


PEAK = """
import resource, sys, tempfile
from pathlib import Path
from regraft.batch import Answerer, plan

who = Answerer(name="tiny", version=1, abstain_below=0.0, content="0" * 64)
def peak(n):
    with tempfile.TemporaryDirectory() as folder:
        manifest = Path(folder) / "photos.csv"
        with manifest.open("w") as file:
            file.write("image\\n")
            file.writelines(f"/nowhere/a folder/photo number {i}.jpg\\n" for i in range(n))
        for _ in range(2):
            assert plan([str(manifest)], folder + "/out", who, 5000).n_photos == n
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(peak(20_000), peak(200_000))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the peak is counted in other units")
def test_memory_stays_flat_whatever_the_number_of_photos():
    run = [sys.executable, "-c", PEAK]
    done = subprocess.run(run, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    few, many = map(float, done.stdout.split())
    assert many - few < 20  # MB


def test_another_model_under_the_same_number_is_not_taken_for_the_planned_one(world):
    from regraft.batch import Answerer, classifier_of
    from regraft.errors import ReloadMismatch

    other = Answerer(name=NAME, version=1, abstain_below=0.0, content="0" * 64)
    with pytest.raises(
        ReloadMismatch, match=rf"Expected {NAME}/1 to be the model of 000000000000 .*planned anew"
    ):
        classifier_of(other, world.tracking)


def test_a_folder_whose_name_is_no_text_is_refused_before_anything_runs(world, tmp_path):
    from regraft.errors import ConfigError

    with pytest.raises(ConfigError, match=r"Expected a place whose name is UTF-8, got .*caf.xe9"):
        call(world, f"{tmp_path}/caf\udce9", out=tmp_path / "out")


def test_a_risk_is_refused_as_predict_refuses_it(world, tmp_path):
    from regraft.errors import ConfigError

    with pytest.raises(ConfigError, match=r"predict\.target_risk=0\.05 is for a training"):
        call(world, tmp_path, out=tmp_path / "out", settings=("predict.target_risk=0.05",))
