"""Artifacts of steps are loaded exactly as they were saved."""

from dataclasses import fields, is_dataclass
from pathlib import Path

import pandas as pd
import pytest
import torch
from tiny_challenger import trained
from tiny_train import last_run, output

from regraft.core.config import FreezeConfig, IngestConfig
from regraft.data.ingest import ingest
from regraft.model.classifier import ImageClassifier
from regraft.model.freeze import freeze

pytestmark = pytest.mark.pipeline


@pytest.fixture
def store(shared_world):
    from zenml.client import Client

    return Client().active_stack.artifact_store


def assert_same(loaded, saved):
    """Equal, through every field of a value and every cell, type and index of a table."""
    assert type(loaded) is type(saved)
    if isinstance(saved, pd.DataFrame):
        pd.testing.assert_frame_equal(loaded, saved, check_exact=True)
    elif isinstance(saved, ImageClassifier):
        assert loaded.card == saved.card
        assert loaded.weights.keys() == saved.weights.keys()
        for name, tensor in saved.weights.items():
            assert loaded.weights[name].dtype == tensor.dtype
            assert torch.equal(loaded.weights[name], tensor), name
    elif is_dataclass(saved):
        for part in fields(saved):
            assert_same(vars(loaded)[part.name], vars(saved)[part.name])
    else:
        assert loaded == saved


def round_trip(materializer, value, store, folder: Path):
    """Save the value, and load it as another step would."""
    folder.mkdir(parents=True)
    materializer(str(folder), store).save(value)
    return materializer(str(folder), store).load(type(value))


def test_every_value_is_loaded_as_it_was_saved(shared_world, store):
    from materializers.classifier import ChallengerMaterializer, ClassifierMaterializer
    from materializers.reports import ReportMaterializer
    from materializers.tables import ImageTableMaterializer, SplitsMaterializer

    made = trained()
    photos = Path(made.splits.test.path.iloc[0]).parents[1]
    values = {
        ImageTableMaterializer: ingest(IngestConfig(photos=str(photos))),
        SplitsMaterializer: made.splits,
        ClassifierMaterializer: made.challenger.classifier,
        ChallengerMaterializer: made.challenger,
        ReportMaterializer: made.report,
    }
    for materializer, value in values.items():
        folder = shared_world.state.artifacts / materializer.__name__
        loaded = round_trip(materializer, value, store, folder)
        assert_same(loaded, value)
        hashes = [materializer("", store).compute_content_hash(each) for each in (value, loaded)]
        assert hashes[0] == hashes[1], materializer


def test_values_without_tables_pass_zenml_unchanged(shared_world):
    run = last_run()
    plan = freeze(output(run, "load_pretrained"), FreezeConfig(policy="last_block"))
    assert output(run, "freeze") == plan
    verdict, version = output(run, "promote"), output(run, "register")
    assert type(verdict.evidence["n_test"]) is int
    assert (version.name, version.version, version.created) == ("colours", 1, True)
