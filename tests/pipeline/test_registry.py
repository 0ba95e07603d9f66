"""What the registry and the promotion promise, in a real MLflow store."""

import base64
import json
import os
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import hostile
import mlflow.pyfunc
import numpy as np
import pandas as pd
import pytest
import torch
from fastapi.testclient import TestClient
from mlflow.exceptions import MlflowException
from mlflow.pyfunc import scoring_server
from tiny_challenger import Trained, put, tracking_in, trained

from regraft import registry
from regraft.classifier import ImageClassifier
from regraft.embed import BATCH_SIZE, NO_STORE, logits, probabilities
from regraft.errors import ModelNotFound, ReloadMismatch, UnusablePhoto
from regraft.ingest.read_policy import ReadPolicy
from regraft.pixels import photos_of
from regraft.registry.package import git_sha, requirements
from regraft.registry.served import image_bytes
from regraft.tracking import start_run

pytestmark = [pytest.mark.pipeline, pytest.mark.usefixtures("calm")]


@pytest.fixture
def tracking(tmp_path, monkeypatch):
    """A store of its own; one that MLflow opens in the working directory is a fault."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    yield tracking_in(tmp_path)
    assert not {path.name for path in elsewhere.iterdir()} & {"mlflow.db", "mlruns"}


def served(version, tracking, **model_config):
    """The model as MLflow loads it, from the path of a sqlite store's artifacts."""
    folder = version.bundle_url.removesuffix("/artifacts/bundle")
    return mlflow.pyfunc.load_model(folder, model_config=model_config)


def expected_probs(made: Trained, n_photos: int) -> np.ndarray:
    photos = photos_of(made.splits.test)[:n_photos]
    scores = logits(made.challenger.classifier, photos, NO_STORE)
    return probabilities(scores, made.report.temperature).numpy()


def test_version_carries_the_tags_and_the_alias(tracking):
    run = start_run(tracking, "tiny-1")
    made = trained()
    made = replace(made, challenger=replace(made.challenger, run_id=run.run_id))
    version = put(made, tracking)
    assert (version.version, version.created, version.run_id) == (1, True, run.run_id)
    assert registry.aliases(tracking, "tiny") == {"challenger": 1}
    tags = run.client.get_model_version("tiny", "1").tags
    assert tags["content_hash"] == version.content_hash
    assert tags["dataset_digest"] == made.splits.digest
    assert tags["mlflow_run_id"] == run.run_id
    assert tags["zenml_run"] == "tiny"
    assert float(tags["test_accuracy"]) == pytest.approx(made.report.accuracy.value, abs=1e-6)
    assert tags["n_test"] == str(made.report.n)
    assert "git_sha" in tags


def test_loaded_classifier_is_the_saved_one_bit_for_bit(tracking):
    version = put(trained(), tracking)
    loaded = registry.load(tracking, version)
    made = trained().challenger.classifier.with_card(temperature=trained().report.temperature)
    assert loaded.card == made.card.model_copy(update={"config": loaded.card.config})
    assert loaded.card.config["registry.n_parity"] == "3"
    assert loaded.weights.keys() == made.weights.keys()
    assert all(torch.equal(loaded.weights[name], made.weights[name]) for name in made.weights)
    assert loaded.content_hash == version.content_hash


def test_manifest_says_what_was_trained_and_chosen_on(tracking):
    manifest = registry.load_manifest(tracking, put(trained(), tracking))
    assert set(manifest.columns) == {"sha256", "phash", "thumbnail", "label", "side"}
    assert set(manifest.side) == {"train", "validation"}
    assert not set(manifest.sha256) & set(trained().splits.test.sha256)


def test_same_content_is_registered_once(tracking):
    first, again = put(trained(), tracking), put(trained(), tracking)
    assert first.created
    assert again == replace(first, created=False)
    assert len(registry.list_versions(tracking)) == 1


def test_bundle_holds_no_pickle_and_no_index_address(tracking, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("uv.lock").write_text('source = { registry = "https://index.invalid/simple" }')
    Path("pyproject.toml").write_text("[project]")
    version = put(trained(), tracking)
    model = Path(version.bundle_url).parents[1]
    files = [path for path in model.rglob("*") if path.is_file()]
    assert {path.suffix for path in files if "code" not in path.parts} <= {
        *(".safetensors", ".json", ".parquet", ".yaml", ".txt", ".py", ""),
    }
    assert not [path for path in files if b"index.invalid" in path.read_bytes()]
    assert not [path for path in files if "__pycache__" in path.parts]


def test_served_model_takes_file_bytes_and_base64(tracking):
    model = served(put(trained(), tracking), tracking)
    files = [Path(path).read_bytes() for path in trained().splits.test.path[:4]]
    encoded = [base64.encodebytes(file).decode() for file in files]
    data_urls = [f"data:image/png;base64,{base64.b64encode(file).decode()}" for file in files]
    for images in (files, encoded, data_urls, [files[0], *encoded[1:]]):
        answer = model.predict(pd.DataFrame({"image": images}))
        probs = answer.filter(like="prob:").to_numpy()
        assert np.allclose(probs, expected_probs(trained(), len(files)), atol=1e-5)


def test_paths_are_read_only_where_the_loader_allows_them(tracking):
    version = put(trained(), tracking)
    paths = trained().splits.test.path.tolist()[:4]
    urls = [f"file://{path}" for path in paths]
    with pytest.raises(MlflowException):
        served(version, tracking).predict(pd.DataFrame({"image": paths}))
    local = served(version, tracking, image_schemes=["file"])
    for images in (paths, urls):
        answer = local.predict(pd.DataFrame({"image": images}))
        probs = answer.filter(like="prob:").to_numpy()
        assert np.allclose(probs, expected_probs(trained(), len(paths)), atol=1e-5)
    small = served(version, tracking, image_schemes=["file"], image_max_bytes=100)
    with pytest.raises(MlflowException, match="too large"):
        small.predict(pd.DataFrame({"image": paths}))


def test_many_images_are_held_a_batch_at_a_time(tracking, monkeypatch):
    model = served(put(trained(), tracking), tracking)
    sizes = []
    python_model = model.unwrap_python_model()
    real = sys.modules[type(python_model).__module__].batch_of
    module = sys.modules[type(python_model).__module__]
    monkeypatch.setattr(
        module, "batch_of", lambda images: sizes.append(len(images)) or real(images)
    )
    file = Path(trained().splits.test.path[0]).read_bytes()
    assert len(model.predict(pd.DataFrame({"image": [file] * (BATCH_SIZE + 3)}))) == BATCH_SIZE + 3
    assert sizes == [BATCH_SIZE, 3]
    assert len(model.predict(pd.DataFrame({"image": []}, dtype=object))) == 0


def test_hostile_requests_open_nothing_and_are_refused(tracking, tmp_path):
    """Each request in this process, where Python itself reports what is opened."""
    model = served(put(trained(), tracking), tracking)
    canary = tmp_path / "canary.jpg"
    canary.write_text(hostile.SECRET)
    os.mkfifo(tmp_path / "pipe")
    client = TestClient(scoring_server.init(model), raise_server_exceptions=False)
    hostile_requests = hostile.requests(canary, tmp_path, 9)
    assert len(hostile_requests) >= 30
    client.post("/invocations", content=b"")  # what is imported once is opened now
    with opened_by_this_process() as opened:
        canary.read_text()
        assert opened.pop() == str(canary)  # the recorder works
        for kind, body in hostile_requests:
            answer = client.post("/invocations", content=body, headers={"content-type": kind})
            assert 400 <= answer.status_code < 500, body[:200]
            assert hostile.SECRET not in answer.text
            assert len(answer.text) > 10
    inside = (sys.prefix, sys.base_prefix, "/usr/lib", "/usr/share/zoneinfo")
    assert [place for place in opened if not place.startswith(inside)] == []


@contextmanager
def opened_by_this_process():
    """Paths of files that are opened, and hosts that are connected to, while the block runs."""
    places, active = [], [True]

    def record(event, arguments):
        if active and event in ("open", "os.open", "socket.connect", "socket.getaddrinfo"):
            places.append(str(arguments[0] if event == "open" else arguments[:2]))

    sys.addaudithook(record)  # it cannot be removed, only made idle
    try:
        yield places
    finally:
        active.clear()


def test_model_serves_http_requests_without_a_checkout(tracking, tmp_path):
    """MLflow's own scoring code, in a process that finds regraft in the model only."""
    version = put(trained(), tracking)
    model = version.bundle_url.removesuffix("/artifacts/bundle")
    path = trained().splits.test.path[0]
    file = base64.b64encode(Path(path).read_bytes()).decode()
    request = json.dumps({"dataframe_split": {"columns": ["image"], "data": [[file]]}})
    script = (
        "import sys, mlflow.pyfunc\n"
        "from mlflow.pyfunc import scoring_server\n"
        "model = mlflow.pyfunc.load_model(sys.argv[1])\n"
        "import regraft\n"
        "schema = model.metadata.get_input_schema()\n"
        "answer = scoring_server.invocations(sys.stdin.read(), 'application/json', model, schema)\n"
        "print(regraft.__file__)\n"
        "print(answer.response)\n"
    )
    command = [sys.executable, "-c", script, model]
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        command,
        input=request,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment,
        check=True,
    )
    where, response = done.stdout.strip().splitlines()
    assert where.startswith(model)
    answer = json.loads(response)["predictions"][0]
    probs = [answer[f"prob:{name}"] for name in trained().splits.classes]
    assert probs == pytest.approx(expected_probs(trained(), 1)[0].tolist(), abs=1e-5)


def invoke(model, image: object):
    request = json.dumps({"dataframe_records": [{"image": image}]})
    schema = model.metadata.get_input_schema()
    return scoring_server.invocations(request, "application/json", model, schema)


def test_input_example_is_a_request_that_works(tracking):
    version = put(trained(), tracking)
    model = served(version, tracking)
    root = Path(version.bundle_url).parents[1]
    request = (root / "serving_input_example.json").read_text()
    schema = model.metadata.get_input_schema()
    answer = scoring_server.invocations(request, "application/json", model, schema)
    assert answer.status == 200
    assert len(json.loads(answer.response)["predictions"]) == 1


@pytest.mark.parametrize(
    ("image", "told"),
    [
        ("no/such/photo.png", "Image 0: no image"),
        ("iVBORw0KGgo=", "Image 0: truncated"),
        (3, "got int"),
        (None, "got NoneType"),
        ("gopher://x/y", "Image 0: no image"),
    ],
)
def test_request_that_is_no_image_is_told_so(tracking, image, told):
    model = served(put(trained(), tracking), tracking)
    with pytest.raises(MlflowException) as refused:
        invoke(model, image)
    assert told in refused.value.message
    assert refused.value.get_http_status_code() == 400


def test_path_that_looks_like_base64_is_still_a_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("R0lGODdh").write_bytes(b"file")
    Path("Qk").mkdir()
    Path("Qk/photo").write_bytes(b"photo")
    local = ReadPolicy(("file",))
    assert image_bytes("R0lGODdh", local) == b"GIF87a"  # base64 of an image's head wins
    assert image_bytes("Qk/photo", local) == b"photo"
    for place in ("a\0b", "Qk", "no/such"):
        with pytest.raises(UnusablePhoto):
            image_bytes(place, local)


@dataclass(frozen=True)
class Unfaithful(ImageClassifier):
    """A classifier whose disk is not to be trusted: what is written is not what was there."""

    damage: str = ""

    def save(self, folder: Path):
        super().save(folder)
        file = folder / "weights.safetensors"
        if self.damage == "cut":
            file.write_bytes(file.read_bytes()[:-100])
            return
        bias = torch.tensor([9.0, 0.0, 0.0])
        ImageClassifier(self.card, self.weights | {"head.bias": bias}).save(folder)


@pytest.mark.parametrize(
    ("damage", "told"), [("other", "probabilities differ by up to"), ("cut", "it cannot be asked")]
)
def test_version_that_answers_otherwise_is_refused(tracking, damage, told):
    made = trained()
    sound = made.challenger.classifier
    classifier = Unfaithful(sound.card, sound.weights, damage)
    bad = replace(made, challenger=replace(made.challenger, classifier=classifier))
    with pytest.raises(ReloadMismatch, match=rf"to answer as the trained model.*{told}"):
        put(bad, tracking)
    assert registry.list_versions(tracking).empty
    assert registry.aliases(tracking, "tiny") == {}
    assert put(made, tracking).created  # and it does not count as registered


def test_interrupted_registration_is_never_found(tracking, monkeypatch):
    def killed(*arguments: object):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("regraft.registry.registration._check_reload", killed)
        with pytest.raises(KeyboardInterrupt):
            put(trained(), tracking)
    with pytest.raises(ModelNotFound, match=r"tiny/1 was never checked to its end"):
        registry.find(tracking, "tiny", "1")
    assert registry.list_versions(tracking).why.tolist() == ["its registration was interrupted"]
    assert put(trained(), tracking).version == 2


def test_unknown_model_says_what_there_is(tracking):
    with pytest.raises(ModelNotFound, match=r"Nothing is registered there; run `regraft train`"):
        registry.resolve(tracking, "tiny")
    put(trained(), tracking)
    with pytest.raises(ModelNotFound, match=r"tiny@champion.*Known: tiny/1 \(challenger\)\."):
        registry.resolve(tracking, "tiny")
    with pytest.raises(ModelNotFound, match=r"tiny/7 in .*Known: tiny/1"):
        registry.resolve(tracking, "tiny/7")
    with pytest.raises(ModelNotFound, match=r"Known models: tiny\."):
        registry.resolve(tracking, "tinny@champion")
    assert registry.resolve(tracking, "tiny/1") == registry.resolve(tracking, "tiny@challenger")


def test_nameless_reference_means_the_only_champion(tracking):
    with pytest.raises(ModelNotFound, match=r"Expected one champion in .*found none\. Run"):
        registry.resolve(tracking, "")
    registry.set_alias(tracking, put(trained(), tracking), "champion")
    assert registry.resolve(tracking, "") == registry.resolve(tracking, "tiny@champion")
    twin = tracking.model_copy(update={"name": "twin"})
    registry.set_alias(twin, put(trained(), twin), "champion")
    with pytest.raises(ModelNotFound, match=r"found tiny@champion, twin@champion\. Name the one"):
        registry.resolve(tracking, "")


def test_requirements_name_no_local_build():
    card = trained().challenger.classifier.card
    card = card.model_copy(update={"versions": card.versions | {"torch": "2.15.0+cu130"}})
    assert "torch==2.15.0" in requirements(card)


def test_git_sha_is_empty_where_git_does_not_answer(monkeypatch):
    assert git_sha() == "" or len(git_sha()) == 40
    monkeypatch.setenv("PATH", "")
    assert git_sha() == ""
