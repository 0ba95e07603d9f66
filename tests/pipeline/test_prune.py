"""Pruning deletes no version that serves, served or may serve, and frees the disk space."""

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import torch
from tiny_challenger import put, tracking_in, trained
from typer.testing import CliRunner

from regraft import registry
from regraft.cli import app
from regraft.core.errors import ConfigError, LedgerBroken, ModelNotFound, RegistryError
from regraft.core.state import environment, open_state
from regraft.registry import prune as prune_module
from regraft.registry.champion import ChampionChange, move_champion, roll_back
from regraft.registry.prune import LEFT_OVER, pin, plan_prune, prune, unpin
from regraft.registry.tracking import connect, open_experiment, start_run
from regraft.registry.versions import CONTENT_HASH

pytestmark = pytest.mark.pipeline

SIZE = 100_000  # bytes of a version's files
NAME = "tiny"


@pytest.fixture
def tracking(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tracking_in(tmp_path)


def now() -> datetime:
    return datetime.now(UTC)


def make(tracking, tags: dict[str, str] | None = None, name: str = NAME) -> int:
    """A version with files in MLflow, as register() makes one; sealed if no tags are given."""
    client = connect(tracking)
    run = start_run(tracking, "tiny").run_id  # else MLflow looks in a store of its own
    model = client.create_logged_model(open_experiment(tracking), name, run)
    folder = Path(tracking.artifacts_url).parent / "to log"
    (folder / "artifacts" / "bundle").mkdir(parents=True, exist_ok=True)
    (folder / "artifacts" / "bundle" / "weights.safetensors").write_bytes(bytes(SIZE))
    client.log_model_artifacts(model.model_id, str(folder))
    if name not in registry.versions.list_models(tracking):
        client.create_registered_model(name)
    made = client.create_model_version(
        name,
        model.artifact_location,
        run_id=run,
        model_id=model.model_id,
        tags={CONTENT_HASH: model.model_id} if tags is None else tags,
        await_creation_for=None,
    )
    return int(made.version)


def version(tracking, number: int):
    return registry.find(tracking, NAME, str(number))


def promote(tracking, number: int):
    serving = registry.get_aliases(tracking, NAME).get("champion")
    move_champion(
        tracking, NAME, ChampionChange("promote", number, "", "It won.", "me"), serving, now()
    )


def left(tracking) -> set[int]:
    client = connect(tracking)
    return {int(one.version) for one in client.search_model_versions(f"name='{NAME}'")}


def n_bytes(tracking) -> int:
    files = Path(tracking.artifacts_url).rglob("*")
    return sum(path.stat().st_size for path in files if path.is_file())


def why(tracking, number: int, keep: int = 0) -> str:
    found = {one.version: one for one in plan_prune(tracking, NAME, keep, now())}
    return f"{'delete' if found[number].should_delete else 'keep'}: {found[number].reason}"


def test_the_newest_are_kept_and_the_disk_space_of_the_others_is_freed(tracking):
    for _ in range(4):
        make(tracking)
    planned = plan_prune(tracking, NAME, 1, now())
    assert [(one.version, one.should_delete, one.n_bytes) for one in planned] == [
        *((4, False, SIZE), (3, True, SIZE), (2, True, SIZE), (1, True, SIZE)),
    ]
    assert left(tracking) == {1, 2, 3, 4}
    assert n_bytes(tracking) == 4 * SIZE
    assert [one.version for one in prune(tracking, NAME, 1, now())] == [1, 2, 3]
    assert left(tracking) == {4}
    assert n_bytes(tracking) == SIZE
    assert prune(tracking, NAME, 1, now()) == ()


def test_every_former_champion_is_kept_even_after_a_rollback(tracking):
    for _ in range(5):
        make(tracking)
    for number in (1, 2, 3):
        promote(tracking, number)
    roll_back(tracking, NAME, "me", "It was worse.", now())
    assert registry.get_aliases(tracking, NAME) == {"champion": 2, "previous": 1}
    assert [one.version for one in prune(tracking, NAME, 0, now())] == [4, 5]
    assert (why(tracking, 2), why(tracking, 3)) == (
        "keep: is the champion",
        "keep: was the champion",
    )
    assert why(tracking, 1) == "keep: is the previous"


def test_the_challenger_and_every_version_with_an_alias_are_kept(tracking):
    make(tracking), make(tracking)
    registry.set_alias(tracking, version(tracking, 1), "challenger")
    registry.set_alias(tracking, version(tracking, 1), "demo")
    assert why(tracking, 1) == "keep: is the challenger, demo"
    assert why(tracking, 2) == "delete: not among the newest"


def test_a_pinned_version_is_kept_until_it_is_unpinned(tracking):
    pin(tracking, version(tracking, make(tracking)))
    assert why(tracking, 1) == "keep: pinned"
    unpin(tracking, version(tracking, 1))
    assert why(tracking, 1) == "delete: not among the newest"


def test_a_version_that_waits_for_approval_is_kept(tracking):
    make(tracking)
    registry.set_tags(tracking, version(tracking, 1), {"approval": "pending"})
    assert why(tracking, 1) == "keep: waits for approval"
    registry.set_tags(tracking, version(tracking, 1), {"approval": "rejected"})
    assert why(tracking, 1).startswith("delete")


def test_a_registration_that_may_be_running_is_kept_for_a_day_and_not_counted(tracking):
    make(tracking), make(tracking, tags={})
    assert why(tracking, 2, keep=1) == "keep: its registration may be running"
    assert why(tracking, 1, keep=1) == "keep: among the newest 1"
    tomorrow = now() + timedelta(days=1, minutes=1)
    gone = prune(tracking, NAME, 1, tomorrow)
    assert [(one.version, one.reason) for one in gone] == [(2, "its registration failed")]


def test_a_version_that_became_champion_after_the_plan_is_kept(tracking, monkeypatch):
    make(tracking), make(tracking)
    plan = prune_module.plan_prune

    def slow(*arguments):
        planned = plan(*arguments)
        promote(tracking, 1)
        pin(tracking, version(tracking, 2))
        return planned

    monkeypatch.setattr(prune_module, "plan_prune", slow)
    assert prune(tracking, NAME, 0, now()) == ()
    assert left(tracking) == {1, 2}


def test_files_that_another_version_uses_are_kept(tracking):
    make(tracking)
    client = connect(tracking)
    source = client.get_model_version(NAME, "1")
    client.create_registered_model("copy")
    client.create_model_version("copy", source.source, source.run_id, model_id=source.model_id)
    assert why(tracking, 1).startswith("keep: another version")


def test_files_outside_the_artifact_store_are_kept(tracking, tmp_path):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "weights").write_bytes(b"1")
    client = connect(tracking)
    client.create_registered_model(NAME)
    client.create_model_version(NAME, str(mine), tags={CONTENT_HASH: "1"})
    (gone,) = prune(tracking, NAME, 0, now())
    assert (gone.version, gone.n_bytes) == (1, 0)
    assert (mine / "weights").exists()
    assert left(tracking) == set()


def test_leftover_files_of_a_killed_prune_are_deleted_the_next_time(tracking):
    make(tracking), make(tracking)
    connect(tracking).delete_model_version(NAME, "1")  # and then it was killed
    assert [one.version for one in plan_prune(tracking, NAME, 5, now())] == [2]
    tomorrow = now() + timedelta(days=1, minutes=1)
    (gone,) = prune(tracking, NAME, 5, tomorrow)
    assert (gone.version, gone.n_bytes) == (LEFT_OVER, SIZE)
    assert "0.1 MB" in str(gone)
    assert n_bytes(tracking) == SIZE
    assert prune(tracking, NAME, 5, tomorrow) == ()


def test_files_that_cannot_be_deleted_are_reported_and_deleted_later(tracking, tmp_path):
    make(tracking)
    place = Path(connect(tracking).get_model_version(NAME, "1").source)
    moved = place.rename(tmp_path / "on another disk")
    place.symlink_to(moved)  # which nothing removes as a folder
    with pytest.raises(RegistryError, match=r"tiny/1"):
        prune(tracking, NAME, 0, now())
    assert left(tracking) == set()
    place.unlink()
    moved.rename(place)
    assert len(prune(tracking, NAME, 0, now() + timedelta(days=2))) == 1
    assert n_bytes(tracking) == 0


def test_nothing_is_deleted_if_the_ledger_is_broken(tracking):
    make(tracking), make(tracking)
    promote(tracking, 1)
    promote(tracking, 2)
    connect(tracking).delete_model_version(f"{NAME}.ledger", "1")
    with pytest.raises(LedgerBroken):
        prune(tracking, NAME, 0, now())
    assert left(tracking) == {1, 2}


def test_an_unknown_model_and_a_negative_number_are_refused(tracking):
    make(tracking)
    with pytest.raises(ModelNotFound, match=r"tony.*\btiny\b"):
        plan_prune(tracking, "tony", 5, now())
    with pytest.raises(ConfigError, match="-1"):
        plan_prune(tracking, NAME, -1, now())


def test_a_real_champion_can_be_loaded_after_the_prune(tracking):
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    champion = put(trained(), tracking)
    torch.set_num_threads(before)
    promote(tracking, 1)
    make(tracking)
    registry.set_alias(tracking, champion, "challenger")
    assert [one.version for one in prune(tracking, NAME, 0, now())] == [2]
    loaded = registry.load(tracking, registry.resolve(tracking, ""))
    assert loaded.content_hash == champion.content_hash


@pytest.fixture
def call(tracking, monkeypatch):
    """`regraft models ARGUMENTS` on the state of the store."""
    root = Path(tracking.artifacts_url).parent
    for name, value in environment(open_state(root), debug=False).items():
        monkeypatch.setenv(name, value)

    def called(*arguments: str):
        return CliRunner().invoke(app, ["models", *arguments, "--state", str(root)])

    return called


def test_the_command_alone_lists_versions_and_prune_lists_deletions(call, tracking):
    make(tracking), make(tracking)
    assert call().output.split()[:4] == ["name", "version", "aliases", "test_accuracy"]
    dry = call("prune", "--keep", "1", "--dry-run").output
    assert [line.split(" (")[0] for line in dry.splitlines()[:2]] == [
        "tiny/2: keep",
        "tiny/1: delete",
    ]
    assert dry.endswith("1 of 2, 0.1 MB would be freed.\n")
    assert left(tracking) == {1, 2}
    assert call("pin", "tiny/1").output == "tiny/1 is pinned.\n"
    assert call("prune", NAME, "--keep", "1").output.endswith("0 of 2, 0.0 MB freed.\n")
    assert call("unpin", "tiny/1").output == "tiny/1 is not pinned.\n"
    assert call("prune", NAME, "--keep", "1").output.endswith("1 of 2, 0.1 MB freed.\n")
    assert left(tracking) == {2}


def test_the_state_option_before_the_command_applies_to_it(call, tracking, tmp_path):
    make(tracking)
    elsewhere = shutil.copytree(Path(tracking.artifacts_url).parent, tmp_path / "elsewhere")
    root = str(Path(tracking.artifacts_url).parent)
    done = CliRunner().invoke(app, ["models", "--state", root, "prune", "--keep", "0"])
    assert done.output.endswith("1 of 1, 0.1 MB freed.\n")
    assert (elsewhere / "mlflow").exists()
    assert left(tracking) == set()
