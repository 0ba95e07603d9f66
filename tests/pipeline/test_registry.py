"""Registration, loading and serving of models in a real MLflow store."""

import base64
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Barrier

import hostile
import mlflow.pyfunc
import numpy as np
import pandas as pd
import pytest
import torch
from fastapi.testclient import TestClient
from mlflow.exceptions import MlflowException
from mlflow.pyfunc import scoring_server
from tiny_challenger import TUNE, Trained, put, trained
from tiny_store import Store, in_children, registered_pair

from regraft import registry
from regraft.core.config import Config, PredictConfig, RegistryConfig
from regraft.core.errors import ModelNotFound, ReloadMismatch, UnusablePhoto
from regraft.data.ingest.read_policy import ReadPolicy
from regraft.model.classifier import ImageClassifier
from regraft.model.embed import BATCH_SIZE, NO_STORE, logits, probabilities
from regraft.model.pixels import photos_of
from regraft.registry.package import git_sha, requirements
from regraft.registry.served import image_bytes
from regraft.registry.tracking import connect, start_run
from regraft.registry.versions import find_by_content
from tests.pipeline.conftest import REPOSITORY

pytestmark = [pytest.mark.pipeline, pytest.mark.usefixtures("calm")]


PAIR = 2  # versions in the store of `registered`; the newer one is trained()
FOREIGN = {
    "uv.lock": 'source = { registry = "https://index.invalid/simple" }',
    "pyproject.toml": "[project]",
}


@pytest.fixture
def working_directory(tmp_path, monkeypatch):
    """A folder with files of another project; the test fails if MLflow creates a store in it."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    for name, text in FOREIGN.items():
        (folder / name).write_text(text)
    monkeypatch.chdir(folder)
    yield folder
    assert {path.name for path in folder.iterdir()} == FOREIGN.keys()


@pytest.fixture(scope="module")
def empty_store(tmp_path_factory):
    return Store(tmp_path_factory.mktemp("empty"))


@pytest.fixture(scope="module")
def pair_store(tmp_path_factory):
    return Store(tmp_path_factory.mktemp("pair"), registered_pair())


@pytest.fixture
def tracking(empty_store, working_directory):
    """An empty store."""
    empty_store.restore("start")
    return empty_store.tracking


@pytest.fixture
def first(empty_store, working_directory):
    """A store with trained() and its run, registered from the working directory."""
    if "first" not in empty_store:
        empty_store.restore("start")
        run = start_run(empty_store.tracking, "tiny-1")
        made = trained()
        challenger = replace(made.challenger, run_id=run.run_id)
        assert put(replace(made, challenger=challenger), empty_store.tracking).created
        empty_store.save("first")
    empty_store.restore("first")
    return empty_store.tracking


@pytest.fixture
def registered(pair_store, working_directory):
    """A store with trained() as version PAIR of the model "tiny"."""
    pair_store.restore("start")
    return pair_store.tracking


def version_of(tracking, number: int = PAIR) -> registry.RegisteredVersion:
    return registry.find(tracking, "tiny", str(number))


def served(version, tracking, **model_config):
    """Load the model with MLflow from the artifact folder of a SQLite store."""
    folder = version.bundle_url.removesuffix("/artifacts/bundle")
    return mlflow.pyfunc.load_model(folder, model_config=model_config)


def expected_probs(made: Trained, n_photos: int) -> np.ndarray:
    photos = photos_of(made.splits.test)[:n_photos]
    scores = logits(made.challenger.classifier, photos, NO_STORE)
    return probabilities(scores, made.report.temperature).numpy()


def test_version_carries_the_tags_and_the_alias(first):
    version, made = version_of(first, 1), trained()
    run = connect(first).get_run(version.run_id)
    assert run.info.run_name == "tiny-1"
    assert registry.get_aliases(first, "tiny") == {"challenger": 1}
    tags = connect(first).get_model_version("tiny", "1").tags
    assert tags["content_hash"] == version.content_hash
    assert tags["dataset_digest"] == made.splits.digest
    assert tags["mlflow_run_id"] == version.run_id
    assert tags["zenml_run"] == "tiny"
    assert float(tags["test_accuracy"]) == pytest.approx(made.report.accuracy.value, abs=1e-6)
    assert tags["n_test"] == str(made.report.n)
    assert "git_sha" in tags


def test_loaded_classifier_is_the_saved_one_bit_for_bit(registered):
    version = version_of(registered)
    loaded = registry.load(registered, version)
    made = trained().challenger.classifier.with_card(temperature=trained().report.temperature)
    assert loaded.card == made.card.model_copy(update={"config": loaded.card.config})
    assert loaded.card.config["registry.n_parity"] == "3"
    assert loaded.weights.keys() == made.weights.keys()
    assert all(torch.equal(loaded.weights[name], made.weights[name]) for name in made.weights)
    assert loaded.content_hash == version.content_hash


def test_manifest_lists_the_photos_for_training_and_selection(registered):
    manifest = registry.load_manifest(registered, version_of(registered))
    assert set(manifest.columns) == {"sha256", "phash", "thumbnail", "label", "split"}
    assert set(manifest.split) == {"train", "validation"}
    assert not set(manifest.sha256) & set(trained().splits.test.sha256)


def test_same_content_is_registered_once(registered):
    assert put(trained(), registered) == replace(version_of(registered), created=False)
    assert len(registry.list_versions(registered)) == PAIR


def test_two_writers_of_one_tag_at_the_same_moment_both_succeed(registered):
    version, tracking = version_of(registered), registered
    barrier = Barrier(4, timeout=20)  # s; a writer that fails leaves the others waiting

    def write(number: int):
        for turn in range(10):
            barrier.wait()
            registry.set_tags(tracking, version, {f"turn-{turn}": str(number)})

    with ThreadPoolExecutor(4) as threads:
        for written in [threads.submit(write, number) for number in range(4)]:
            written.result()
    tags = registry.get_tags(tracking, version)
    assert {tags[f"turn-{turn}"] for turn in range(10)} <= {"0", "1", "2", "3"}


def test_cached_training_is_registered_under_other_settings_in_a_run_of_its_own(first):
    version, made = version_of(first, 1), trained()
    challenger = replace(made.challenger, run_id=version.run_id)  # as its cached step returns it
    unsure = Config(
        registry=RegistryConfig(n_parity=3),
        predict=PredictConfig(abstain_below=0.6),
        tracking=first,
        tune=TUNE,
    )
    second = registry.register(challenger, made.report, made.splits, unsure, {})
    assert (second.version, second.created) == (2, True)
    runs = [connect(first).get_run(each.run_id) for each in (version, second)]
    assert [run.data.params["predict.abstain_below"] for run in runs] == ["0.0", "0.6"]
    for run in runs:
        assert run.data.metrics["test_accuracy"] == made.report.accuracy.value
    assert runs[1].data.tags["dataset_digest"] == made.splits.digest  # the training's record


def test_bundle_contains_only_the_code_that_serving_imports(first):
    code = Path(version_of(first, 1).bundle_url).parents[1] / "code" / "regraft"
    packages = {path.parent.relative_to(code).as_posix() for path in code.rglob("*.py")}
    assert packages == {
        *(".", "core", "core/config", "data", "data/ingest", "evaluation"),
        *("model", "model/backbone", "model/embed"),
    }


def test_bundle_contains_no_pickle_and_no_index_url(first):
    model = Path(version_of(first, 1).bundle_url).parents[1]
    files = [path for path in model.rglob("*") if path.is_file()]
    assert {path.suffix for path in files if "code" not in path.parts} <= {
        *(".safetensors", ".json", ".parquet", ".yaml", ".txt", ".py", ""),
    }
    assert not [path for path in files if b"index.invalid" in path.read_bytes()]
    assert not [path for path in files if "__pycache__" in path.parts]


def test_served_model_accepts_file_bytes_and_base64(registered):
    model = served(version_of(registered), registered)
    files = [Path(path).read_bytes() for path in trained().splits.test.path[:4]]
    encoded = [base64.encodebytes(file).decode() for file in files]
    data_urls = [f"data:image/png;base64,{base64.b64encode(file).decode()}" for file in files]
    for images in (files, encoded, data_urls, [files[0], *encoded[1:]]):
        answer = model.predict(pd.DataFrame({"image": images}))
        probs = answer.filter(like="prob:").to_numpy()
        assert np.allclose(probs, expected_probs(trained(), len(files)), atol=1e-5)


def test_served_answer_names_the_classes_in_order(registered):
    model = served(version_of(registered), registered)
    files = [Path(path).read_bytes() for path in trained().splits.test.path[:2]]
    answer = model.predict(pd.DataFrame({"image": files}))
    probs = [f"prob:{name}" for name in trained().splits.classes]
    assert list(answer.columns) == ["label", "confidence", *probs]
    assert answer[probs].sum(axis=1).to_numpy() == pytest.approx([1, 1])
    assert (answer.confidence == answer[probs].max(axis=1)).all()
    assert ("prob:" + answer.label == answer[probs].idxmax(axis=1)).all()


def test_paths_are_read_only_where_the_loader_allows_them(registered):
    version = version_of(registered)
    paths = trained().splits.test.path.tolist()[:4]
    urls = [f"file://{path}" for path in paths]
    with pytest.raises(MlflowException):
        served(version, registered).predict(pd.DataFrame({"image": paths}))
    local = served(version, registered, image_schemes=["file"])
    for images in (paths, urls):
        answer = local.predict(pd.DataFrame({"image": images}))
        probs = answer.filter(like="prob:").to_numpy()
        assert np.allclose(probs, expected_probs(trained(), len(paths)), atol=1e-5)
    small = served(version, registered, image_schemes=["file"], image_max_bytes=100)
    with pytest.raises(MlflowException, match="too large"):
        small.predict(pd.DataFrame({"image": paths}))


def test_one_batch_of_images_is_in_memory_at_a_time(registered, monkeypatch):
    model = served(version_of(registered), registered)
    sizes = []
    python_model = model.unwrap_python_model()
    module = sys.modules[type(python_model).__module__]
    real = module.batch_of
    monkeypatch.setattr(
        module, "batch_of", lambda images: sizes.append(len(images)) or real(images)
    )
    file = Path(trained().splits.test.path[0]).read_bytes()
    assert len(model.predict(pd.DataFrame({"image": [file] * (BATCH_SIZE + 3)}))) == BATCH_SIZE + 3
    assert sizes == [BATCH_SIZE, 3]
    assert len(model.predict(pd.DataFrame({"image": []}, dtype=object))) == 0


def test_hostile_requests_open_nothing_and_are_refused(registered, tmp_path):
    """Send each request in this process, where Python reports opened files."""
    model = served(version_of(registered), registered)
    canary = tmp_path / "canary.jpg"
    canary.write_text(hostile.SECRET)
    os.mkfifo(tmp_path / "pipe")
    client = TestClient(scoring_server.init(model), raise_server_exceptions=False)
    hostile_requests = hostile.requests(canary, tmp_path, 9)
    assert len(hostile_requests) >= 30
    client.post("/invocations", content=b"")  # opens everything that is imported only once
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
    """Yield the paths of files opened and the hosts connected to during the block."""
    places, active = [], [True]

    def record(event, arguments):
        if active and event in ("open", "os.open", "socket.connect", "socket.getaddrinfo"):
            places.append(str(arguments[0] if event == "open" else arguments[:2]))

    sys.addaudithook(record)  # a hook cannot be removed, only deactivated
    try:
        yield places
    finally:
        active.clear()


SCORE = """
import sys
import mlflow.pyfunc
from mlflow.pyfunc import scoring_server
model = mlflow.pyfunc.load_model(sys.argv[1])
import regraft
schema = model.metadata.get_input_schema()
answer = scoring_server.invocations(sys.stdin.read(), "application/json", model, schema)
print(regraft.__file__)
print(answer.response)
"""


def in_a_fork(model: str, request: str, folder: Path) -> str:
    """Return the output of SCORE in a forked process without regraft on its import path."""

    def score():
        for name in [name for name in sys.modules if name.partition(".")[0] == "regraft"]:
            del sys.modules[name]
        sys.path[:] = [place for place in sys.path if Path(place).resolve() != REPOSITORY]
        sys.meta_path[:] = [one for one in sys.meta_path if "editable" not in repr(one)]
        sys.argv, sys.stdin = ["score", model], io.StringIO(request)
        with (folder / "printed").open("w") as printed, redirect_stdout(printed):
            exec(SCORE, {})

    assert in_children(score) == [0]
    return (folder / "printed").read_text()


def in_a_new_interpreter(model: str, request: str, folder: Path) -> str:
    variables = {name: text for name, text in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-c", SCORE, model]
    pipes = {"capture_output": True, "text": True, "check": True}
    return subprocess.run(command, input=request, cwd=folder, env=variables, **pipes).stdout


@pytest.mark.parametrize(
    "score", [in_a_fork, pytest.param(in_a_new_interpreter, marks=pytest.mark.slow)]
)
def test_model_serves_http_requests_without_a_checkout(
    registered, tmp_path, score: Callable[[str, str, Path], str]
):
    """Run MLflow's scoring code in a process that can import regraft from the model only."""
    model = version_of(registered).bundle_url.removesuffix("/artifacts/bundle")
    path = trained().splits.test.path[0]
    file = base64.b64encode(Path(path).read_bytes()).decode()
    request = json.dumps({"dataframe_split": {"columns": ["image"], "data": [[file]]}})
    where, response = score(model, request, tmp_path).strip().splitlines()
    assert where.startswith(model)
    answer = json.loads(response)["predictions"][0]
    probs = [answer[f"prob:{name}"] for name in trained().splits.classes]
    assert probs == pytest.approx(expected_probs(trained(), 1)[0].tolist(), abs=1e-5)


def invoke(model, image: object):
    request = json.dumps({"dataframe_records": [{"image": image}]})
    schema = model.metadata.get_input_schema()
    return scoring_server.invocations(request, "application/json", model, schema)


def test_input_example_is_a_request_that_works(registered):
    version = version_of(registered)
    model = served(version, registered)
    root = Path(version.bundle_url).parents[1]
    request = (root / "serving_input_example.json").read_text()
    schema = model.metadata.get_input_schema()
    answer = scoring_server.invocations(request, "application/json", model, schema)
    assert answer.status == 200
    assert len(json.loads(answer.response)["predictions"]) == 1


@pytest.fixture(scope="module")
def served_once(pair_store):
    """The loaded model, for tests that only send requests."""
    pair_store.restore("start")
    return served(version_of(pair_store.tracking), pair_store.tracking)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ("no/such/photo.png", "Image 0: no image"),
        ("iVBORw0KGgo=", "Image 0: truncated"),
        (3, " int"),
        (None, " NoneType"),
        ("gopher://x/y", "Image 0: no image"),
    ],
)
def test_request_without_an_image_is_refused(served_once, image, message):
    model = served_once
    with pytest.raises(MlflowException) as refused:
        invoke(model, image)
    assert message in refused.value.message
    assert refused.value.get_http_status_code() == 400


def test_path_that_looks_like_base64_is_still_a_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("R0lGODdh").write_bytes(b"file")
    Path("Qk").mkdir()
    Path("Qk/photo").write_bytes(b"photo")
    local = ReadPolicy(("file",))
    assert image_bytes("R0lGODdh", local) == b"GIF87a"  # base64 of an image header takes precedence
    assert image_bytes("Qk/photo", local) == b"photo"
    for place in ("a\0b", "Qk", "no/such"):
        with pytest.raises(UnusablePhoto):
            image_bytes(place, local)


@dataclass(frozen=True)
class Unfaithful(ImageClassifier):
    """A classifier whose files differ from its weights, as after a disk failure."""

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
    ("damage", "found"), [("other", r"within 0\.0001, .* by up to (0\.\d|1)"), ("cut", "header")]
)
def test_version_with_other_predictions_is_refused(tracking, registered, damage, found):
    made = trained()
    sound = made.challenger.classifier
    classifier = Unfaithful(sound.card, sound.weights, damage)
    bad = replace(made, challenger=replace(made.challenger, classifier=classifier))
    with pytest.raises(ReloadMismatch, match=rf"tiny/1, .*{found}"):
        put(bad, tracking)
    assert registry.list_versions(tracking).empty
    assert registry.get_aliases(tracking, "tiny") == {}
    content = version_of(registered).content_hash
    assert find_by_content(tracking, content) is None  # so the next attempt registers it


def test_interrupted_registration_cannot_be_found(tracking, monkeypatch):
    def killed(*arguments: object):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("regraft.registry.registration._check_reload", killed)
        with pytest.raises(KeyboardInterrupt):
            put(trained(), tracking)
    with pytest.raises(ModelNotFound, match=r"^tiny/1 "):
        registry.find(tracking, "tiny", "1")
    [row] = registry.list_versions(tracking).to_dict("records")
    assert "interrupted" in row["why"]
    assert put(trained(), tracking).version == 2


def test_unknown_model_error_lists_what_exists(tracking, registered):
    with pytest.raises(ModelNotFound, match=r"tiny@champion .*mlflow\.db.*regraft train"):
        registry.resolve(tracking, "tiny")  # nothing is registered there
    with pytest.raises(ModelNotFound, match=r"tiny@champion.*: tiny/2 \(challenger\), tiny/1\."):
        registry.resolve(registered, "tiny")
    with pytest.raises(ModelNotFound, match=r"tiny/7 in .*: tiny/2"):
        registry.resolve(registered, "tiny/7")
    with pytest.raises(ModelNotFound, match=r"tinny@champion .*: tiny\."):
        registry.resolve(registered, "tinny@champion")
    newest = registry.resolve(registered, "tiny@challenger")
    assert registry.resolve(registered, "tiny/2") == newest


def test_empty_reference_selects_the_only_champion(registered):
    with pytest.raises(ModelNotFound, match=r"champion .*mlflow\.db.* none\. .*regraft train"):
        registry.resolve(registered, "")
    registry.set_alias(registered, version_of(registered), "champion")
    assert registry.resolve(registered, "") == registry.resolve(registered, "tiny@champion")
    client = connect(registered)
    client.create_registered_model("twin")
    client.create_model_version("twin", "regraft:/nothing", tags={"content_hash": "1"})
    registry.set_alias(registered, registry.find(registered, "twin", "1"), "champion")
    with pytest.raises(ModelNotFound, match=r" tiny@champion, twin@champion\."):
        registry.resolve(registered, "")


def test_requirements_contain_no_local_version():
    card = trained().challenger.classifier.card
    card = card.model_copy(update={"versions": card.versions | {"torch": "2.15.0+cu130"}})
    assert "torch==2.15.0" in requirements(card)


def test_git_sha_is_empty_where_git_does_not_answer(monkeypatch):
    assert git_sha() == "" or len(git_sha()) == 40
    monkeypatch.setenv("PATH", "")
    assert git_sha() == ""
