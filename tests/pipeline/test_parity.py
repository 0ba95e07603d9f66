"""Golden photos through every channel, with real models, a real store and real servers."""

import json
import math
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import pandas as pd
import psutil
import pytest
import torch
from conftest import REPOSITORY
from conftest import one_thread as in_one_thread
from safetensors.torch import load_file, save_file
from tiny_challenger import put, tracking_in, trained

from regraft.core.errors import RegistryError, UnusablePhoto
from regraft.evaluation.predict import prediction_table
from regraft.model.embed import NO_STORE, logits
from regraft.model.pixels import photos_of
from regraft.registry import serving
from regraft.registry.parity import (
    MODEL_ERRORS,
    golden_parity,
    golden_photos,
    max_difference,
    starting_server,
)
from regraft.registry.serving import request_predictions, start_server

pytestmark = pytest.mark.pipeline
TOLERANCE = 1e-4
# A model that does not import torch, so its server starts in half the time.
LIGHT = """
import base64, os
from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel

class Light(PythonModel):
    def predict(self, context, model_input, params=None):
        wish = base64.b64decode(model_input["image"][0])
        if wish == b"refuse":
            raise MlflowException.invalid_parameter_value("Image 0: not this one")
        return [1.0, 2.0] if wish == b"numbers" else [{"label": name} for name in os.environ]

set_model(Light())
"""
HANGING = """
import time
time.sleep(600)
"""


@pytest.fixture(autouse=True)
def one_thread():
    with in_one_thread():
        yield


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """An undamaged version, its golden photos, the expected predictions and its store."""
    tracking = tracking_in(tmp_path_factory.mktemp("parity"))
    made = trained()
    golden = golden_photos(made.splits.test, 6)
    classifier = made.challenger.classifier.with_card(temperature=made.report.temperature)
    expected = prediction_table(logits(classifier, photos_of(golden), NO_STORE), classifier.card)
    return put(made, tracking), golden.path.tolist(), expected, tracking


@pytest.fixture(autouse=True)
def scratch(tmp_path, monkeypatch, stored):
    """The folder of the servers; at the end, no process and no file of a server is left."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    assert servers_in(folder) == []
    assert list(folder.iterdir()) == []


def servers_in(folder: Path) -> list[list[str]]:
    """Return the commands of running processes with a HOME in this folder."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            alive = process.status() != psutil.STATUS_ZOMBIE
            if alive and process.environ().get("HOME", "").startswith(str(folder)):
                found.append(process.cmdline())
    return found


def model_folder(stored) -> Path:
    return Path(stored[0].bundle_url).parents[1]


def model_with(code: str, stored, folder: Path) -> Path:
    """Copy the model to a path with a space and replace its code."""
    model = shutil.copytree(model_folder(stored), folder / "a model")
    (model / "served.py").write_text(code)
    return model


@contextmanager
def restored(file: Path):
    """Restore the file at block exit."""
    before = file.read_bytes()
    try:
        yield file
    finally:
        file.write_bytes(before)


def swap_weights(bundle: Path):
    file = bundle / "weights.safetensors"
    weights = load_file(file)
    save_file(weights | {"head.bias": weights["head.bias"] + torch.tensor([9.0, 0, 0])}, file)


def change_card(bundle: Path, **changes):
    file = bundle / "card.json"
    card = json.loads(file.read_text())
    preprocessing = card["backbone"]["preprocessing"]
    for target in (card, preprocessing):
        target.update({key: value for key, value in changes.items() if key in target})
    file.write_text(json.dumps(card))


def change_normalisation(bundle: Path):
    change_card(bundle, mean=[0.1, 0.1, 0.1], std=[0.5, 0.5, 0.5])


def shuffle_classes(bundle: Path):
    change_card(bundle, classes=["blue", "green", "amber"])


def parity_of(stored, serve):
    version, _, _, tracking = stored
    with starting_server(version, tracking) if serve else nullcontext() as server:
        return golden_parity(*stored, server)


@pytest.mark.parametrize("serve", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_undamaged_version_predicts_the_same_through_every_channel(stored, serve):
    rows = parity_of(stored, serve)
    assert [row.channel for row in rows] == ["pyfunc", "predict", "server"][: len(rows)]
    assert len(rows) == 2 + serve
    for row in rows:
        assert (row.n, row.agreement, row.error) == (6, 1.0, "")
        assert row.max_difference < TOLERANCE


@pytest.mark.parametrize(
    ("damage", "serve"),
    [
        *((swap_weights, False), (change_normalisation, False), (shuffle_classes, False)),
        pytest.param(change_normalisation, True, marks=pytest.mark.slow),
    ],
)  # one server test is enough: a server takes 8 s to start and reads the same folder
def test_damage_in_the_store_is_detected_by_every_channel(stored, damage, serve):
    bundle = Path(stored[0].bundle_url)
    with restored(bundle / "weights.safetensors"), restored(bundle / "card.json"):
        damage(bundle)
        rows = parity_of(stored, serve)
    assert [row.channel for row in rows] == ["pyfunc", "predict", "server"][: len(rows)]
    assert len(rows) == 2 + serve
    for row in rows:
        assert row.error == ""  # the model still predicts
        assert row.max_difference > TOLERANCE
    if damage == shuffle_classes:
        assert {row.agreement for row in rows} == {0.0}


@pytest.mark.parametrize("serve", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_model_that_mlflow_cannot_read_is_an_error_of_the_channels_that_need_mlflow(stored, serve):
    with restored(model_folder(stored) / "MLmodel") as file:
        file.write_text("flavors: [")
        pyfunc, predict, *server = parity_of(stored, serve)
    assert (predict.agreement, predict.error) == (1.0, "")
    assert "ParserError" in pyfunc.error
    assert len(server) == serve
    for row in (pyfunc, *server):
        assert (row.n, row.max_difference, row.agreement) == (6, math.inf, 0.0)
        assert "\n" not in row.error
        assert len(row.error) < 600


def test_missing_files_are_an_error_of_every_channel(stored):
    version, *others = stored
    gone = replace(version, bundle_url="/no/such/folder/artifacts/bundle")
    rows = golden_parity(gone, *others, server=None)
    assert [row.channel for row in rows] == ["pyfunc", "predict"]
    assert all("No such artifact: 'folder'" in row.error for row in rows)
    assert {row.agreement for row in rows} == {0.0}


def test_version_that_cannot_be_downloaded_is_an_error_of_its_server_not_of_the_start(stored):
    version, _, _, tracking = stored
    gone = replace(version, bundle_url="/no/such/folder/artifacts/bundle")
    with starting_server(gone, tracking) as predict, pytest.raises(MODEL_ERRORS, match="folder"):
        predict([b""])


def test_unreadable_photo_raises(stored, tmp_path):
    version, paths, expected, tracking = stored
    with pytest.raises(UnusablePhoto, match=r"missing: no file at .*gone\.png"):
        golden_parity(version, [*paths[:5], str(tmp_path / "gone.png")], expected, tracking, None)
    cut = tmp_path / "cut.png"
    cut.write_bytes(Path(paths[0]).read_bytes()[:200])
    with pytest.raises(UnusablePhoto, match=r"truncated: .*\(in .*cut\.png\)"):
        golden_parity(version, [*paths[:5], str(cut)], expected, tracking, None)


def test_golden_photos_come_from_the_classes_in_turn_for_any_row_order():
    table = pd.DataFrame(
        {
            "label": ["b", "a", "b", "a", "c", "a"],
            "sha256": ["2", "9", "1", "3", "7", "4"],
            "path": list("uvwxyz"),
        }
    )
    assert golden_photos(table, 5).sha256.tolist() == ["3", "1", "7", "4", "2"]
    assert golden_photos(table.iloc[::-1], 5).sha256.tolist() == ["3", "1", "7", "4", "2"]
    assert golden_photos(table, 99).sha256.tolist() == ["3", "1", "7", "4", "2", "9"]


def test_difference_that_is_not_a_number_is_infinite():
    table = pd.DataFrame({"label": ["a"], "confidence": [0.75], "prob:a": [0.75], "prob:b": [0.25]})
    assert max_difference(table, table) == 0.0
    assert max_difference(table, table.assign(confidence=0.5)) == 0.25
    assert max_difference(table, table.assign(confidence=None)) == math.inf
    assert max_difference(table, table[["label", "confidence", "prob:b", "prob:a"]]) == math.inf
    assert max_difference(table, pd.concat([table, table])) == math.inf
    assert max_difference(table[:0], table[:0]) == math.inf


@pytest.fixture(scope="module")
def light(stored, tmp_path_factory):
    """The URL of a light server whose first port another program took."""
    folder = tmp_path_factory.mktemp("light")
    server = start_server(model_with(LIGHT, stored, folder))
    with socket.socket() as other, ExitStack() as stack:
        other.bind(("127.0.0.1", 0))
        other.listen()
        ports = iter([other.getsockname()[1], serving._free_port()])
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(serving, "_free_port", lambda: next(ports))
            patched.setattr(tempfile, "tempdir", str(folder))
            patched.setenv("AWS_SECRET_ACCESS_KEY", "nobody's business")
            patched.setenv("MLFLOW_TRACKING_URI", "http://tracking.invalid")
            url = stack.enter_context(server).wait()
        assert urlsplit(url).port != other.getsockname()[1]
        yield url
    assert servers_in(folder) == []


@pytest.mark.slow
def test_server_gets_no_secret_of_the_caller(light):
    names = set(request_predictions(light, [b"environment"]).label)
    assert {"PATH", "HOME"} <= names
    assert not names & {"AWS_SECRET_ACCESS_KEY", "MLFLOW_TRACKING_URI"}


@pytest.mark.slow
def test_server_listens_on_this_machine_only(light):
    listening = [
        connection.laddr
        for process in psutil.Process().children(recursive=True)
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert listening == [("127.0.0.1", urlsplit(light).port)]


@pytest.mark.slow
def test_refusal_contains_the_message_of_the_model(light):
    with pytest.raises(
        RegistryError,
        match=r"(?s)http://127.*HTTP 400.*not this one$",
    ):
        request_predictions(light, [b"refuse"])


@pytest.mark.slow
def test_answer_without_a_table_is_reported(light):
    with pytest.raises(
        RegistryError,
        match=r"http://127.*1\.0, 2\.0",
    ):
        request_predictions(light, [b"numbers"])


def test_missing_server_is_reported():
    url = f"http://127.0.0.1:{serving._free_port()}"
    with pytest.raises(RegistryError, match=r"ConnectionRefused"):
        request_predictions(url, [b""])


@pytest.mark.slow
def test_hanging_server_is_killed_after_the_timeout(stored, tmp_path):
    model, start = model_with(HANGING, stored, tmp_path), time.monotonic()
    with (
        pytest.raises(
            RegistryError,
            match=r"a model.* 3 s\b",
        ),
        start_server(model, timeout_s=3) as server,
    ):
        server.wait()
    assert time.monotonic() - start < 20


@pytest.mark.slow
def test_server_ends_when_the_calling_process_is_killed(stored, tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    script = (
        "import sys\nfrom pathlib import Path\nfrom regraft.registry.serving import start_server\n"
        "with start_server(Path(sys.argv[1])) as server:\n    server.wait()\n"
    )
    command = [sys.executable, "-c", script, str(model_with(HANGING, stored, tmp_path))]
    variables = os.environ | {"TMPDIR": str(home), "PYTHONPATH": str(REPOSITORY)}
    with subprocess.Popen(command, env=variables) as parent:
        assert until(lambda: any("mlflow" in command for command in servers_in(home)), 60)
        parent.send_signal(signal.SIGKILL)
    assert until(lambda: not servers_in(home), 5)


def until(condition, timeout_s: float) -> bool:
    end = time.monotonic() + timeout_s
    while not condition() and time.monotonic() < end:
        time.sleep(0.05)
    return condition()
