"""What a forked process does in the tests of killed retrainings; it imports ZenML before the fork.

A module of its own, because a test module must not import zenml when it is collected.
"""

import os
from pathlib import Path

import torch

import pipelines.approval
import pipelines.doctor
import pipelines.retrain  # noqa: F401 - imported before the fork, so that a child need not
from regraft.state import activate, environment
from tests.pipeline.conftest import reset_zenml
from tests.pipeline.tiny_train import World


def child(folder: str):
    """One retraining, as `regraft retrain` makes it."""
    world = World(Path(folder))
    os.environ.update(environment(world.state, debug=False))
    reset_zenml()
    activate(world.state)
    torch.set_num_threads(1)
    world.retrain()
