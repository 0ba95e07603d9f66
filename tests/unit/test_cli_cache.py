"""regraft cache: contents and eviction of the embedding store; --help is in test_cli.py."""

import json
import re

import pytest
import torch
from test_cli import run as run_cli

from regraft.core.errors import StateError
from regraft.core.state import State, open_state
from regraft.model.backbone import Preprocessing
from regraft.model.embed import CacheKey
from regraft.model.embed.store import EmbeddingPartition, Shard

LOOK = Preprocessing(size=8, resize=8, mean=(0, 0, 0), std=(1, 1, 1), interpolation="bilinear")


@pytest.fixture
def state(tmp_path) -> State:
    return open_state(tmp_path / "state folder")


def keep(state: State, weights: str, n_photos: int, until: str = "", view: str = ""):
    made = {"architecture": "timm:tiny", "weights": weights * 64, "preprocessing": LOOK}
    cache_key = CacheKey(
        **made, compute="float32 on cpu", code_fingerprint="m", until=until, view=view
    )
    partition = EmbeddingPartition(str(state.embeddings), cache_key)
    for first in range(0, n_photos, 100):
        photos = tuple(f"{number:064x}" for number in range(first, min(first + 100, n_photos)))
        partition.add(Shard(photos, torch.zeros(len(photos), 2500)))
    partition.touch()


def run(state: State, *arguments: str) -> str:
    done = run_cli("cache", *arguments, "--state", str(state.root))
    assert done.exit_code == 0, done.output
    return done.output


def test_info_lists_the_partitions(state):
    keep(state, "a", 100)
    keep(state, "b", 250, until="blocks.6", view="seed 0, number 3")
    head, first, second, total = run(state, "info").splitlines()
    assert re.split(" {2,}", head) == [
        *("network", "at", "precision", "view", "photos", "MB", "last used")
    ]
    cells = re.split(" {2,}", first)
    assert cells[:6] == [
        *("timm:tiny bbbbbbbbbbbb", "blocks.6", "float32 on cpu", "seed 0, number 3"),
        *("250", "2.5"),
    ]
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d", cells[6])
    assert re.split(" {2,}", second)[1:5] == ["embedding", "float32 on cpu", "as tested", "100"]
    assert re.search(rf"\b3\.5 MB\b.*\b20000 MB\b.* {state.embeddings}$", total)


def test_info_in_json_has_the_same_and_numbers_as_numbers(state):
    keep(state, "a", 100)
    data = json.loads(run(state, "info", "--json"))
    assert (data["total_MB"], data["max_MB"]) == (1.0, 20000.0)
    [row] = data["partitions"]
    assert (row["network"], row["photos"], row["MB"]) == ("timm:tiny aaaaaaaaaaaa", 100, 1.0)


def test_info_of_an_empty_store(state):
    [total] = run(state, "info").splitlines()
    assert re.search(rf"\b0\.0 MB\b.*\b20000 MB\b.* {state.embeddings}$", total)
    assert json.loads(run(state, "info", "--json"))["partitions"] == []


def test_a_partition_of_another_version_is_marked(state):
    keep(state, "a", 100)
    [cache_key] = state.embeddings.glob("*/cache_key.json")
    cache_key.write_text("{}")
    row = run(state, "info").splitlines()[1]
    assert "timm:tiny" not in row
    assert re.search(r" 100 +1\.0 ", row)


def freed_and_left(state, *arguments: str) -> tuple[float, float]:
    """Return the numbers of MB that `regraft cache gc` prints."""
    [line] = run(state, "gc", *arguments).splitlines()
    assert line.endswith(f" {state.embeddings}")
    freed, left = re.findall(r"([\d.]+) MB\b", line)
    return float(freed), float(left)


def test_gc_keeps_what_fits_and_prints_the_freed_size(state):
    keep(state, "a", 100)
    keep(state, "b", 100)
    assert freed_and_left(state) == (0.0, 2.0)
    assert freed_and_left(state, "--max-gb", "0.0015") == (1.0, 1.0)
    assert "timm:tiny bbbb" in run(state, "info")
    assert "timm:tiny aaaa" not in run(state, "info")


def test_gc_to_nothing_empties(state):
    keep(state, "a", 300)
    assert freed_and_left(state, "--max-gb", "0") == (3.0, 0.0)
    assert list(state.embeddings.iterdir()) == []


def test_less_than_nothing_is_refused(state):
    assert run_cli("cache", "gc", "--max-gb", "-1", "--state", str(state.root)).exit_code == 2


def test_a_missing_state_folder_is_an_error(tmp_path):
    done = run_cli("cache", "info", "--state", str(tmp_path / "nothing"))
    assert isinstance(done.exception, StateError)
    assert str(tmp_path / "nothing") in str(done.exception)
    assert not (tmp_path / "nothing").exists()


def test_the_store_is_that_of_the_configuration(state, tmp_path):
    elsewhere = tmp_path / "shared store"
    keep(State(elsewhere.parent / "other"), "a", 3)
    (elsewhere.parent / "other" / "embeddings").rename(elsewhere)
    there = ("--set", f"embed.store_url={elsewhere}", "--set", "embed.max_gb=0.00001")
    assert re.search(rf"\b0\.0 MB\b.*\b0 MB\b.* {elsewhere}\n$", run(state, "info", *there))
    assert re.search(r"\b0\.0 MB\b\D*$", run(state, "gc", *there).partition(f" {elsewhere}")[0])
    assert list(elsewhere.rglob("*.safetensors")) == []
