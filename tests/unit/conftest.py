"""What the unit tests share: made once, never changed."""

import pytest
from tiny import classifier_of, draw_splits, write_weights


@pytest.fixture(scope="session")
def weights_path(tmp_path_factory):
    return write_weights(tmp_path_factory.mktemp("weights") / "tiny.safetensors")


@pytest.fixture(scope="session")
def start(weights_path):
    """The tiny classifier before any training."""
    return classifier_of(weights_path)


@pytest.fixture(scope="session")
def splits(tmp_path_factory):
    """Thirty photos of three colours."""
    return draw_splits(tmp_path_factory.mktemp("photos of colours"))
