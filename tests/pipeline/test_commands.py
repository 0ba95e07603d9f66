"""The commands around a run: what they print, write and refuse, and with which exit code."""

import json
import logging
import re
import sys
from pathlib import Path

import pandas as pd
import pytest
from tiny_train import NAME, last_run, output

from regraft import registry
from regraft.cli import main
from regraft.core.state import open_state
from regraft.registry.ledger import list_entries, load_verified_ledger

pytestmark = pytest.mark.pipeline

MODEL = f"{NAME}@champion"


@pytest.fixture(scope="module")
def world(shared_world):
    return shared_world


@pytest.fixture
def call(world, monkeypatch, capsys):
    """Runs `regraft ARGUMENTS` in this process: exit code, stdout, stderr."""
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)  # main() replaces it

    def called(*arguments: str) -> tuple[int, str, str]:
        logger = logging.getLogger("regraft")  # as in a new process, which shows no log yet
        logger.handlers.clear()
        logger.setLevel(logging.NOTSET)
        logger.propagate = True
        monkeypatch.setattr(sys, "argv", ["regraft", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    return called


@pytest.fixture
def where(world) -> tuple[str, str]:
    return "--state", str(world.state.root)


@pytest.fixture
def broken(tmp_path) -> Path:
    path = tmp_path / "broken.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n")
    return path


def test_predict_agrees_with_the_report(call, where, tmp_path):
    answers = output(last_run(), "evaluate").predictions
    judged = answers[answers.split == "test"].reset_index(drop=True)
    out = tmp_path / "predictions.parquet"
    code, said, _ = call("predict", *judged.path, "--model", MODEL, "--out", str(out), *where)
    assert code == 0
    n = len(judged)
    assert re.fullmatch(rf"{n} of {n} .*{NAME}/1.*{re.escape(str(out))}\n", said), said
    table = pd.read_parquet(out)
    assert table.path.tolist() == judged.path.tolist()
    assert table.label.tolist() == judged.predicted.tolist()
    assert (table.confidence - judged.confidence).abs().max() < 1e-4


@pytest.mark.parametrize("extension", ["csv", "json"])
def test_predict_writes_a_broken_photo_with_its_reason(call, where, tmp_path, broken, extension):
    good = output(last_run(), "split").test.path.iloc[0]
    out = tmp_path / f"predictions.{extension}"
    assert call("predict", good, str(broken), "--out", str(out), *where)[0] == 0
    read = pd.read_csv(out, keep_default_na=False) if extension == "csv" else pd.read_json(out)
    assert read.label.tolist()[1] == ""
    assert read.error.tolist()[0] == ""
    assert read.error.tolist()[1].startswith("truncated")


def test_predict_without_a_model_takes_the_only_champion_and_prints_a_table(call, where, broken):
    good = output(last_run(), "split").test.path.iloc[0]
    code, out, err = call("predict", good, str(broken), *where)
    assert (code, err) == (0, "")
    assert out.split()[:4] == ["path", "label", "confidence", "error"]
    assert "truncated" in out


def test_predict_ends_with_3_if_no_photo_could_be_read(call, where, tmp_path, broken):
    code, out, err = call("predict", str(broken), *where)
    assert code == 3
    assert re.fullmatch(r".*\b1 photo\b.*\n", err)
    assert "truncated" in out
    written = tmp_path / "p.csv"
    assert call("predict", str(broken), "--out", str(written), *where)[0] == 3
    assert len(pd.read_csv(written)) == 1


def test_unknown_model_lists_what_exists(call, where, broken):
    code, out, err = call("predict", str(broken), "--model", "socks@champion", *where)
    assert (code, out) == (6, "")
    assert re.fullmatch(rf"ModelNotFound: .*socks@champion.*: {NAME}\.\n", err)
    unknown = call("predict", str(broken), "--model", f"{NAME}/9", *where)[2]
    assert re.search(rf"{NAME}/9.*: {NAME}/1\b", unknown)


def test_models_tells_who_serves_and_why(call, where):
    code, out, _ = call("models", "--json", *where)
    [row] = json.loads(out)
    assert code == 0
    assert set(row) == {"name", "version", "aliases", "test_accuracy", "when", "why"}
    assert (row["name"], row["version"], row["aliases"]) == (NAME, 1, "challenger, champion")
    assert row["why"] == output(last_run(), "promote").reason
    assert row["test_accuracy"] == output(last_run(), "evaluate").accuracy.value
    table = call("models", *where)[1]
    assert NAME in table
    assert "challenger, champion" in table


def test_commands_that_read_say_where_they_expected_a_state(call, tmp_path):
    for arguments in (["models"], ["predict", "x.png"], ["doctor"]):
        code, out, err = call(*arguments, "--state", str(tmp_path / "nothing"))
        assert (code, out) == (7, "")
        assert re.fullmatch(rf"StateError: .*{tmp_path}/nothing\b.*\n", err)
    assert not (tmp_path / "nothing").exists()


def test_photos_that_are_not_there_end_with_3(call, where, tmp_path):
    code, out, err = call("train", str(tmp_path / "nowhere"), *where)
    assert (code, out) == (3, "")
    assert err.startswith("NoPhotos: ")
    assert len(err.splitlines()) == 1


def test_password_in_an_address_is_refused_and_stands_nowhere(call, where, world, tmp_path):
    address = "tracking.uri=postgresql://me:geheim@example.invalid/mlflow"
    said = [call("train", str(world.photos), "--set", address, *where)]
    config = tmp_path / "secret.yaml"
    config.write_text(f"tracking:\n  uri: {address.partition('=')[2]}\n")
    said.append(call("train", str(world.photos), "--config", str(config), *where))
    for code, out, err in said:
        assert (code, out) == (2, "")
        assert re.search(r"tracking\.uri: .*\bpassword\b", err)
        assert "geheim" not in err
    files = [path for path in world.state.root.rglob("*") if path.is_file()]
    assert not [path for path in files if b"geheim" in path.read_bytes()]


def test_debian_copy_of_fashion_mnist_is_found():
    from regraft.core.config import IngestConfig
    from regraft.data.ingest import fingerprint

    if not Path("/usr/share/datasets/fashion-mnist").is_dir():
        pytest.skip("Debian's package dataset-fashion-mnist is not installed")
    assert len(fingerprint(IngestConfig(photos="torchvision:FashionMNIST"))) == 64


def test_doctor_finds_nothing_wrong_after_a_run(call, where, world):
    code, out, _ = call("doctor", *where)
    assert code == 0, out
    assert "FAIL" not in out
    assert open_state(world.state.root).moved_from is None


def test_version_is_judged_again_on_the_photos_that_are_named(call, where, world, tmp_path):
    before = recorded(world)
    rehearsed = call("promote", NAME, "--dry-run", *where)
    assert rehearsed[0] == 0, rehearsed
    assert re.search(rf"^{NAME}/1 .*\b1\b", rehearsed[1], re.MULTILINE)
    gone = call("promote", NAME, "--dry-run", "--photos", str(tmp_path / "gone"), *where)
    assert gone[0] == 3
    assert str(tmp_path / "gone") in gone[2]
    rules = tmp_path / "rules.yaml"
    rules.write_text("promote: {min_photos: 1}\nsplit: {near_duplicate_bits: 0}\n")
    by_file = call("promote", NAME, "--dry-run", "--config", str(rules), *where)
    assert by_file[0] == 0, by_file
    assert recorded(world) == before  # a dry run changes nothing


def recorded(world) -> tuple[dict[str, int], list, set[str]]:
    """Who serves, what the ledger has, and the reports that are there."""
    reports = {str(path) for path in world.state.reports.rglob("*")}
    return (
        registry.get_aliases(world.tracking, NAME),
        list_entries(world.tracking, NAME),
        reports,
    )


def test_verdicts_are_told_judged_anew_and_gone_back_from(call, where, world):
    told = call("explain", NAME, *where)
    assert re.search(r"^ *ok +floor\b", told[1], re.MULTILINE)
    assert output(last_run(), "promote").reason in told[1]
    judged = call("what-if", "--set", "promote.min_accuracy=1.0", "--json", *where)
    [row] = json.loads(judged[1])
    assert (row["version"], row["was"]) == (1, "promote")
    nothing = call("what-if", *where)
    assert nothing[0] == 2
    assert re.fullmatch(r"ConfigError: .*--set promote\.\w+=.*\n", nothing[2])
    back = call("rollback", NAME, *where)
    assert back[0] == 6
    assert re.fullmatch(rf"NoRollbackTarget: .*{NAME}.*regraft history {NAME}.*\n", back[2])
    listed = call("history", NAME, *where)
    assert re.search(rf"{NAME} v1$", listed[1], re.MULTILINE)
    verified = call("ledger", "verify", NAME, *where)
    assert verified[0] == 0
    written = load_verified_ledger(world.tracking, NAME)
    assert len(written.entries) == 1
    assert re.fullmatch(rf"{NAME}: 1 .*\b{written.head}\n", verified[1])
