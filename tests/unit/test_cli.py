"""The command line without a run: quick help, strict settings, one sentence an error."""

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer
import yaml
from typer.testing import CliRunner

import commands
from commands import app, main
from regraft import errors
from regraft.config import Config

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


def imported_by(*arguments: str) -> set[str]:
    """The top-level modules that `regraft ARGUMENTS` imports."""
    command = [sys.executable, "-X", "importtime", "-m", "commands", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    names = re.findall(r"^import time:.*\| +(\w+)", done.stderr, re.MULTILINE)
    assert "typer" in names
    return set(names)


@pytest.mark.parametrize(
    "arguments", [["--help"], ["train", "--help"], ["config", "show"], ["--version"]]
)
def test_quick_answers_import_nothing_heavy(arguments):
    assert not imported_by(*arguments) & HEAVY


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
    documented = [*"0123456789", "10", "11", "130"]
    assert re.findall(r"^\| (\d+) \|", readme, re.MULTILINE) == documented
    assert re.findall(r"(\d+) \w", commands.__doc__.partition("Exit codes:")[2]) == documented


@pytest.mark.parametrize("error", ERRORS, ids=[error.__name__ for error in ERRORS])
def test_error_is_its_sentence_and_its_exit_code(call, monkeypatch, error):
    arguments = ("broken", "word") if error is errors.UnusablePhoto else ("Expected, got.",)

    def fail(path):
        raise error(*arguments)

    monkeypatch.setattr("commands.config.load_config", fail)
    said = f"{error.__name__}: {error(*arguments)}\n"
    assert call("config", "check", "x.yaml") == (error.exit_code, "", said)


def in_a_process(*arguments: str) -> subprocess.CompletedProcess[str]:
    """`regraft ARGUMENTS`, where reading a configuration has a fault."""
    code = (
        "import sys, commands, commands.config\n"
        "commands.config.load_config = lambda path: {}['no such key']\n"
        "commands.main()"
    )
    command = [sys.executable, "-c", code, *arguments, "config", "check", "x.yaml"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)


def test_fault_of_ours_has_no_traceback_and_says_how_to_see_it():
    done = in_a_process()
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines() == [
        "Unexpected KeyError: 'no such key'",
        "This is a fault of ours; regraft --debug ... shows where it happened.",
    ]


def test_debug_shows_the_traceback():
    done = in_a_process("--debug")
    assert done.returncode == 1
    assert "Traceback (most recent call last)" in done.stderr
    assert "KeyError: 'no such key'" in done.stderr


def test_debug_shows_where_an_error_of_ours_was_raised(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["regraft", "--debug", "config", "show", "--set", "nonsense"])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == errors.ConfigError.exit_code
    said = capsys.readouterr().err
    assert "Traceback (most recent call last)" in said
    assert said.endswith("ConfigError: Expected --set section.field=value, got 'nonsense'.\n")


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
    assert err.startswith(f"ConfigError: {file}: no key tune.epoch; did you mean tune.epochs?")


def test_setting_is_refused_before_anything_is_made(call, tmp_path):
    state = tmp_path / "state"
    code, _, err = call("train", "x", "--set", "tune.epochs=-1", "--state", str(state))
    assert code == 2
    assert "tune.epochs: Input should be greater than or equal to 0 (got -1)" in err
    assert not state.exists()


def test_predictions_of_an_unknown_kind_are_refused_before_anything_is_read(call, tmp_path):
    state = str(tmp_path / "nothing")
    code, _, err = call("predict", "x.png", "--out", "p.xls", "--state", state)
    assert code == 2
    assert err.startswith("ConfigError: Expected a file ending in .parquet, .csv, .json")


def test_demo_without_its_photos_says_what_to_install(call, monkeypatch, tmp_path):
    monkeypatch.setattr(sys.modules["commands.demo"], "find_spec", lambda name: None)
    code, _, err = call("demo", "--state", str(tmp_path / "state"))
    assert code == 3
    assert "pip install 'regraft[demo]' (elpv-dataset, licence CC BY-NC-SA 4.0" in err


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
    from commands.train import model_name

    assert model_name(photos) == name
    assert Config.model_validate({"tracking": {"name": name}}).tracking.name == name


def test_every_command_says_what_it_does():
    command = typer.main.get_command(app)
    for name, each in command.commands.items():
        assert each.get_short_help_str(), name
