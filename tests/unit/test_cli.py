"""The command line without a run: quick help, strict settings, one sentence an error."""

import inspect
import json
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import typer
import yaml
from typer.testing import CliRunner

from regraft import cli as commands
from regraft.cli import app, main
from regraft.cli.demo import demo_config, write_manifest
from regraft.core import errors
from regraft.core.config import Config
from regraft.data.ingest.manifest import list_manifest

ROOT = Path(__file__).resolve().parents[2]
HEAVY = {"torch", "torchvision", "timm", "zenml", "mlflow", "pandas", "numpy", "sklearn"}
ERRORS = [
    error
    for _, error in inspect.getmembers(errors, inspect.isclass)
    if issubclass(error, errors.RegraftError)
]


def run(*arguments: str):
    return CliRunner().invoke(app, list(arguments))


@pytest.fixture
def call(monkeypatch, capsys):
    """What main() says and ends with: exit code, stdout, stderr."""
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)  # main() replaces it

    def called(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["regraft", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    return called


QUICK = (
    ("--help",),
    ("train", "--help"),
    ("cache", "--help"),
    ("config", "show"),
    ("--version",),
)
# Runs each of several command lines as `python -m regraft.cli`, one after the other in one process,
# and prints after each its exit code, the size of its answer and all modules imported so far.
RUN_EACH = """
import contextlib, io, json, runpy, sys

for arguments in json.loads(sys.argv[1]):
    sys.argv, answer, code = ["regraft", *arguments], io.StringIO(), None
    with contextlib.redirect_stdout(answer):
        try:
            runpy.run_module("regraft.cli", run_name="__main__", alter_sys=True)
        except SystemExit as end:
            code = end.code or 0
    print(json.dumps([code, len(answer.getvalue()), [*sys.modules]]))
"""


@pytest.fixture(scope="module")
def quick_answers() -> dict[tuple[str, ...], tuple[int, int, set[str]]]:
    """For each of QUICK: exit code, characters printed, modules imported by then."""
    command = [sys.executable, "-c", RUN_EACH, json.dumps(QUICK)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    return {
        arguments: (code, n_printed, set(modules))
        for arguments, (code, n_printed, modules) in zip(QUICK, answers, strict=True)
    }


@pytest.mark.parametrize("arguments", QUICK, ids=" ".join)
def test_quick_answers_import_nothing_heavy(quick_answers, arguments):
    code, n_printed, modules = quick_answers[arguments]
    assert code == 0
    assert n_printed > 0
    assert "typer" in modules
    assert not modules & HEAVY


def test_help_names_every_command_and_exit_code():
    said = " ".join(run("--help").output.split())
    names = ("train", "predict", "models", "doctor", "demo", "config", "cache", "compare-backbones")
    for name in names:
        assert re.search(rf"\b{name}\b", said), name
    for code in {error.exit_code for error in ERRORS}:
        assert re.search(rf"\b{code} \w", said.partition("Exit codes:")[2])


def test_exit_codes_are_the_documented_ones():
    tree = re.findall(r"^(?:├── |└── )(\w+) +(\d+)", errors.__doc__, re.MULTILINE)
    assert {name: int(code) for name, code in tree} == {
        error.__name__: error.exit_code for error in errors.RegraftError.__subclasses__()
    }
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    documented = [*"0123456789", "10", "11", "130", "143"]
    assert re.findall(r"^\| (\d+) \|", readme, re.MULTILINE) == documented
    assert re.findall(r"(\d+) \w", commands.__doc__.partition("Exit codes:")[2]) == documented


@pytest.mark.parametrize("error", ERRORS, ids=[error.__name__ for error in ERRORS])
def test_error_is_its_sentence_and_its_exit_code(call, monkeypatch, error):
    arguments = ("broken", "word") if error is errors.UnusablePhoto else ("Expected, got.",)

    def fail(path):
        raise error(*arguments)

    monkeypatch.setattr("regraft.cli.config.load_config", fail)
    said = f"{error.__name__}: {error(*arguments)}\n"
    assert call("config", "check", "x.yaml") == (error.exit_code, "", said)


def test_fault_of_ours_has_no_traceback_and_says_how_to_see_it():
    """In a process: what prints the traceback is the interpreter, after main() has left."""
    code = (
        "import sys, regraft.cli, regraft.cli.config\n"
        "regraft.cli.config.load_config = lambda path: {}['no such key']\n"
        "regraft.cli.main()"
    )
    command = [sys.executable, "-c", code, "config", "check", "x.yaml"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (1, "")
    fault, hint = done.stderr.splitlines()
    assert fault.endswith("KeyError: 'no such key'")
    assert "--debug" in hint


def test_debug_shows_the_traceback(monkeypatch, capsys):
    """main() lets the fault through and leaves the interpreter's hook, which prints it."""
    monkeypatch.setattr(sys, "excepthook", sys.__excepthook__)
    monkeypatch.setattr(sys, "argv", ["regraft", "--debug", "config", "check", "x.yaml"])
    monkeypatch.setattr("regraft.cli.config.load_config", lambda path: {}["no such key"])
    with pytest.raises(KeyError) as fault:
        main()
    sys.excepthook(fault.type, fault.value, fault.tb)
    said = capsys.readouterr().err
    assert "Traceback (most recent call last)" in said
    assert said.endswith("KeyError: 'no such key'\n")


def test_debug_shows_where_an_error_of_ours_was_raised(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["regraft", "--debug", "config", "show", "--set", "nonsense"])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == errors.ConfigError.exit_code
    said = capsys.readouterr().err
    assert "Traceback (most recent call last)" in said
    assert re.search(r"\nConfigError: .*--set .*'nonsense'.*\n$", said)


def test_usage_error_ends_with_2(call):
    code, _, err = call("train", "--epochs", "5")
    assert code == 2
    assert "No such option" in err
    assert call("trian")[0] == 2
    assert call("train")[0] == 2


def test_config_show_prints_every_value_as_a_run_would_use_it():
    said = run("config", "show", "--set", "tune.epochs=3")
    shown = yaml.safe_load(said.output)
    assert shown == Config.model_validate(shown).model_dump(mode="json")
    assert shown["tune"]["epochs"] == 3
    assert shown["backbone"]["source"] == "bundled:efficientnet_lite0"


def test_config_show_lays_set_over_the_file(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("tune:\n  epochs: 4\n  lr: 0.5\n")
    said = run("config", "show", "--config", str(file), "--set", "tune.epochs=3")
    shown = yaml.safe_load(said.output)["tune"]
    assert (shown["epochs"], shown["lr"]) == (3, 0.5)


def test_config_check_says_ok_of_each_file(call):
    files = [str(path) for path in sorted((ROOT / "configs").glob("*.yaml"))]
    code, out, _ = call("config", "check", *files)
    assert code == 0
    assert out.splitlines() == [f"{file}: ok" for file in files]


def test_config_check_names_the_key_and_the_nearest_one(call, tmp_path):
    file = tmp_path / "wrong.yaml"
    file.write_text("tune:\n  epoch: 4\n")
    code, out, err = call("config", "check", str(file))
    assert (code, out) == (2, "")
    assert re.search(rf"^ConfigError: {file}: .*\btune\.epoch\b.*\btune\.epochs\b", err)


def test_setting_is_refused_before_anything_is_made(call, tmp_path):
    state = tmp_path / "state"
    code, _, err = call("train", "x", "--set", "tune.epochs=-1", "--state", str(state))
    assert code == 2
    assert err.startswith("ConfigError: ")
    assert re.search(r"\btune\.epochs: .*\b0 \(got -1\)", err)
    assert not state.exists()


def test_predictions_of_an_unknown_kind_are_refused_before_anything_is_read(call, tmp_path):
    state = str(tmp_path / "nothing")
    code, _, err = call("predict", "x.png", "--out", "p.xls", "--state", state)
    assert code == 2
    assert re.search(r"^ConfigError: .*\.parquet, \.csv, \.json\b.*p\.xls\b", err)


def test_demo_may_read_each_photo_of_its_package(tmp_path):
    data = Path(find_spec("elpv_dataset").origin).parent / "data"
    manifest = str(write_manifest(data, tmp_path))
    listing = list_manifest(manifest, demo_config(data).ingest)
    assert (len(listing.photos), listing.quarantined) == (2223, ())
    assert not list_manifest(manifest).photos  # without the setting: they lie elsewhere


def test_demo_without_its_photos_says_what_to_install(call, monkeypatch, tmp_path):
    monkeypatch.setattr(sys.modules["regraft.cli.demo"], "find_spec", lambda name: None)
    code, _, err = call("demo", "--state", str(tmp_path / "state"))
    assert code == 3
    assert "pip install 'regraft[demo]'" in err
    assert re.search(r"elpv-dataset\b.*CC BY-NC-SA 4\.0\b", err)


@pytest.mark.parametrize(
    ("photos", "name"),
    [
        ("a/clothes/", "clothes"),
        ("a/my.photos.csv", "my.photos"),
        ("torchvision:FashionMNIST", "FashionMNIST"),
        ("s3://bucket/a/trash", "trash"),
        ("a/Größe (1)", "Größe -1"),
        ("a/trash.v2", "trash.v2"),
        ("/", "photos"),
    ],
)
def test_model_is_called_as_its_photos_are(photos, name):
    from regraft.operations.workflows.settings import default_model_name

    assert default_model_name(photos) == name
    assert Config.model_validate({"tracking": {"name": name}}).tracking.name == name


def test_the_model_has_one_option_in_all_commands():
    """`schedule add --name` is the name of an entry."""
    named = {}
    for name, command in typer.main.get_command(app).commands.items():
        for each in (command, *getattr(command, "commands", {}).values()):
            options = {option for parameter in each.params for option in parameter.opts}
            if name != "schedule" and options & {"--name", "--model"}:
                named[each.name] = options & {"--name", "--model"}
    assert set(named) == {
        *("train", "retrain", "predict", "predict-batch", "compare-backbones", "watch", "test"),
    }
    assert all(options == {"--model"} for options in named.values()), named


def test_every_command_says_what_it_does():
    command = typer.main.get_command(app)
    for name, each in command.commands.items():
        assert each.get_short_help_str(), name
