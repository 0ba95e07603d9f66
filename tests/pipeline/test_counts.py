"""The price of a run in steps, passes, decodings and imports: a clock says little here."""

import io
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from pathlib import Path

import pytest
from mlflow import MlflowClient
from test_processes import UNWANTED
from test_retrain import PROBE, add_photos
from tiny_train import NAME, last_run, made_anew, output, stages
from tiny_train import SETTINGS as TINY
from torch import nn
from torch.nn.modules.module import register_module_forward_hook

from regraft import registry
from regraft.evaluation.cost import N_SERVED

pytestmark = pytest.mark.pipeline

SAID = re.compile(r"^embed: (\d+) .*: (\d+) \w+, (\d+) ", re.MULTILINE)  # photos, known, new
# registry.n_parity photos: by the trained model, and by the reloaded one in two forms.
N_CHECKED = 3 * 3
N_TIMED = 1 + N_SERVED  # grey photos whose milliseconds the promotion measures
N_NEW = 6
N_MODULES = 7000  # 6758 when this was written; ZenML, MLflow and torch bring nearly all


@contextmanager
def photos_seen():
    """How many photos pass through a first convolution; the zeros that measure a width do not."""
    seen = []

    def count(module, inputs, output):
        if isinstance(module, nn.Conv2d) and module.in_channels == 3 and inputs[0].any():
            seen.append(inputs[0])

    hook = register_module_forward_hook(count)
    try:
        yield seen
    finally:
        hook.remove()


def counted(seen) -> int:
    """Without the one photo of 96 pixels by which a folded network is compared with the plain."""
    return sum(len(pixels) for pixels in seen if pixels.shape[-1] != 96)


@contextmanager
def decodings():
    """The sha256 of each content, as often as it is decoded."""
    seen = []
    decode, facts = (sys.modules[f"regraft.data.ingest.{room}"] for room in ("decode", "facts"))
    unpack = decode.unpack

    def counting(data, *arguments):
        seen.append(facts.sha256_of(data))
        return unpack(data, *arguments)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(decode, "unpack", counting)
        patched.setattr(facts, "unpack", counting)
        yield seen


@dataclass(frozen=True)
class Counted:
    """A run, and what it did.

    n_passed: photos through the network. n_new: photos that its log calls new to the embeddings.
    decoded: sha256 of what it decoded, as often as it did.
    """

    run: object
    n_passed: int
    n_new: int
    decoded: list[str]

    @property
    def made_anew(self) -> set[str]:
        return made_anew(self.run)

    @property
    def frame(self):
        return output(self.run, "split").frame


def count_train(world, *settings: str) -> Counted:
    stderr = io.StringIO()
    with redirect_stderr(stderr), photos_seen() as seen, decodings() as decoded:
        run = world.train(*settings)
    n_new = sum(int(new) for _, _, new in SAID.findall(stderr.getvalue()))
    return Counted(run, counted(seen), n_new, decoded)


@dataclass(frozen=True)
class Runs:
    """Runs on one state, one after the other.

    first: of all stages. again: the same, but for an artifact that was deleted from the disk.
    touched: with a photo that has a new time only, and another gallery. probe: with another policy.
    page: the same, after a change of the status page's source. grown: with six more photos.
    head: with another head, after a change in the core.
    """

    first: object
    again: Counted
    touched: Counted
    probe: Counted
    page: Counted
    grown: Counted
    head: Counted


@contextmanager
def changed_source(folder, name):
    """The cache policies read a copy of the core in which one file has another line."""
    from regraft.orchestration import caching

    copy = shutil.copytree(caching.CORE, folder / "changed source")
    (copy / name).write_text((copy / name).read_text(encoding="utf-8") + "\n", encoding="utf-8")
    caching.code_hash.cache_clear()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(caching, "CORE", copy)
        yield
    caching.code_hash.cache_clear()


@pytest.fixture(scope="module")
def runs(shared_world) -> Runs:
    world, first = shared_world, last_run()
    shutil.rmtree(first.steps["split"].output.uri)
    again = count_train(world)
    os.utime(sorted(world.photos.rglob("*.png"))[0])
    touched = count_train(world, "evaluate.n_gallery=3")
    probe = count_train(world, PROBE)
    with changed_source(world.folder, "operations/status/templates/model.html"):
        page = count_train(world, PROBE)
    add_photos(world, 2)
    grown = count_train(world, PROBE)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("regraft.orchestration.caching.code_hash", lambda places: "another")
        head = count_train(world, PROBE, "tune.head_l2=[5.0]")
    return Runs(first, again, touched, probe, page, grown, head)


def test_same_command_again_registers_nothing_new(shared_world, runs):
    assert runs.again.made_anew <= {"split"}
    assert output(runs.again.run, "register").created is False
    assert output(runs.again.run, "register").version == 1
    later = [output(each.run, "register") for each in (runs.grown, runs.head)]
    assert [(version.version, version.created) for version in later] == [(2, True), (3, True)]
    client = MlflowClient(shared_world.tracking.uri)
    experiment = client.get_experiment_by_name(NAME).experiment_id
    assert len(client.search_runs([experiment])) == 4  # none for what was not trained


def test_artifact_deleted_from_the_disk_is_made_anew(runs):
    assert runs.again.made_anew == {"split"}
    assert runs.again.run.status == "completed"
    # What was made anew has the digest that later stages, which were not, have recorded.
    tag = output(runs.again.run, "fine_tune").classifier.card.dataset_digest
    assert output(runs.again.run, "split").digest == tag


def test_touched_photo_costs_one_look_and_nothing_more(runs):
    assert runs.touched.made_anew - {"evaluate"} == {"ingest"}


def test_setting_makes_anew_only_what_depends_on_it(runs):
    assert runs.touched.made_anew - {"ingest"} == {"evaluate"}
    assert runs.probe.made_anew == {"freeze", "fine_tune", "evaluate"}


def test_change_in_the_core_makes_everything_anew(runs):
    assert runs.head.made_anew == set(stages(runs.first)) - {"register", "promote", "mirror"}


def test_a_change_of_the_status_page_makes_nothing_anew(runs):
    assert runs.page.made_anew == set()


def test_new_photos_move_no_old_one_and_a_tie_keeps_the_champion(shared_world, runs):
    tracking = shared_world.tracking
    before = runs.probe.frame.set_index("sha256").split.to_dict()
    after = runs.grown.frame.set_index("sha256").split.to_dict()
    verdict = output(runs.grown.run, "promote")
    assert len(after) == len(before) + N_NEW == 60 + N_NEW
    assert {photo: after[photo] for photo in before} == before
    judged = {photo for photo, side in after.items() if side == "test"}
    for version in ("1", "2"):
        contender = registry.find(tracking, NAME, version)
        assert not judged & set(registry.load_manifest(tracking, contender).sha256)
    assert verdict.evidence["n"] == len(judged)
    assert (verdict.decision, verdict.champion) == ("keep", 1)
    assert verdict.evidence["gain"] == 0
    assert "accuracy" in [guard.name for guard in verdict.guards if guard.outcome == "failed"]
    assert registry.get_aliases(tracking, NAME)["champion"] == 1


def test_a_retrain_pushes_exactly_the_photos_that_it_has_not_seen(runs):
    # The tiny network's weights are the random ones that transfer is measured against: known too.
    assert runs.grown.n_new == N_NEW
    assert runs.grown.n_passed == N_NEW + N_CHECKED + N_TIMED


def test_another_head_on_the_same_photos_pushes_none(runs):
    """Nor does a change in the code that leaves embeddings as they are."""
    assert runs.head.n_new == 0
    assert runs.head.n_passed == N_CHECKED + N_TIMED


def test_a_photo_is_decoded_twice_in_its_life(runs):
    """By ingest and by its pass; what else is decoded are the registry's few to check."""
    known = set(runs.probe.frame.sha256)
    decoded = Counter(runs.grown.decoded)
    new = {sha256: n for sha256, n in decoded.items() if sha256 not in known}
    assert list(new.values()) == [2] * N_NEW
    assert sum(n for sha256, n in decoded.items() if sha256 in known) <= N_CHECKED


@pytest.mark.slow  # fast, in a forked process: test_a_run_imports_nothing_that_it_does_not_need
def test_a_run_imports_no_more_than_it_did(shared_world):
    world = shared_world
    command = [sys.executable, "-X", "importtime", "-m", "regraft.cli", "train", str(world.photos)]
    command += ["--state", str(world.folder / "other state"), "--set", PROBE]
    for setting in (f"backbone.source=file:{world.weights}", *TINY):
        command += ["--set", setting]
    root = Path(__file__).parent.parent.parent
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    modules = set(re.findall(r"^import time:.*\| +([\w.]+)$", done.stderr, re.MULTILINE))
    assert {"torch", "zenml", "mlflow"} <= modules
    assert not UNWANTED & modules
    assert len(modules) <= N_MODULES
