"""The public API: what `import regraft` gives, and how settings are read."""

import subprocess
import sys

import pytest

import regraft
from regraft.api import _config, _overrides
from regraft.core.config import load_config
from regraft.core.errors import ConfigError, StateError

HEAVY = {"torch", "numpy", "pandas", "pydantic", "zenml", "mlflow", "timm", "torchvision"}


def test_import_gives_the_api_and_imports_nothing_heavy():
    code = "import sys, regraft; print(*sorted(regraft.__all__)); print(*sys.modules)"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    names, modules = (line.split() for line in done.stdout.splitlines())
    assert names == [
        "Config",
        "evaluate",
        "load",
        "predict",
        "promote",
        "retrain",
        "train",
        "watch",
    ]
    assert not HEAVY & set(modules)


def test_the_functions_import_no_network_before_one_is_called():
    command = [sys.executable, "-c", "import sys, regraft.api; print(*sys.modules)"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert not {"torch", "torchvision", "timm", "sklearn", "zenml"} & set(done.stdout.split())


def test_every_name_of_the_api_is_there():
    assert all(callable(getattr(regraft, name)) for name in regraft.__all__)
    assert set(regraft.__all__) <= set(dir(regraft))
    with pytest.raises(AttributeError, match="no_such_name"):
        regraft.no_such_name  # noqa: B018 - the access is what fails


def test_settings_by_section_are_the_settings_of_the_command_line(tmp_path):
    settings = {"tune": {"epochs": 3, "head_l2": [1.0, 2.0]}, "freeze": {"policy": "probe"}}
    expected = load_config(None, ("tune.epochs=3", "tune.head_l2=[1,2]", "freeze.policy=probe"))
    assert _config(None, settings) == expected
    file = tmp_path / "some.yaml"
    file.write_text("tune: {epochs: 3}\nfreeze: {policy: probe}\n", encoding="utf-8")
    assert _config(file, {"tune": {"head_l2": [1.0, 2.0]}}) == expected
    assert _config(load_config(file), {"tune": {"head_l2": [1.0, 2.0]}}) == expected


@pytest.mark.parametrize(
    ("settings", "got"),
    [
        ({"tune": 3}, "3"),
        ({"tune": {"epochs": object()}}, "object"),
        ({"tune": {"epoch": 3}}, "epochs"),
    ],
)
def test_settings_that_are_none_are_refused(settings, got):
    with pytest.raises(ConfigError, match=got):
        _config(None, settings)


def test_a_text_stays_a_text():
    assert _overrides({"tracking": {"name": "1e3"}}) == ('tracking.name="1e3"',)
    assert _config(None, {"tracking": {"name": "1e3"}}).tracking.name == "1e3"


def test_a_state_folder_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(StateError):
        regraft.load("cats@champion", state=tmp_path / "none")
