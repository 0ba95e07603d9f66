"""A model server gets the paths of programs from its caller, and no secret."""

import os
import sys
from pathlib import Path

import pytest

from regraft.registry.serving import _environment

SECRETS = (
    *("AWS_SECRET_ACCESS_KEY", "AZURE_STORAGE_CONNECTION_STRING", "GOOGLE_APPLICATION_CREDENTIALS"),
    *("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN", "MLFLOW_TRACKING_URI"),
    *("ZENML_STORE_URL", "ZENML_STORE_API_KEY", "HF_TOKEN", "HTTPS_PROXY", "SSH_AUTH_SOCK"),
    *("MY_OWN_PASSWORD", "HOME", "XDG_CONFIG_HOME"),
)


@pytest.fixture
def environment(monkeypatch, tmp_path):
    for name in SECRETS:
        monkeypatch.setenv(name, "hidden")
    monkeypatch.setenv("PATH", "/programs")
    monkeypatch.setenv("LD_LIBRARY_PATH", "/cuda libraries")
    return _environment(tmp_path)


def test_a_server_gets_no_secret_from_its_caller(environment, tmp_path):
    assert "hidden" not in "\n".join(environment.values())
    assert environment["HOME"] == str(tmp_path)


def test_a_server_finds_programs_and_libraries(environment):
    folders = environment["PATH"].split(os.pathsep)
    assert folders == [str(Path(sys.executable).parent), "/programs"]
    assert environment["LD_LIBRARY_PATH"] == "/cuda libraries"
