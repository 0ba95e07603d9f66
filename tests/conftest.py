"""How every tier runs: two workers with a thread each, and a precision that can be forced."""

import gc
import logging
import os
from pathlib import Path

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported; children inherit it

# ZenML reads it when it is imported; a worker of xdist has no main module to find the sources by.
os.environ["ZENML_CUSTOM_SOURCE_ROOT"] = str(Path(__file__).resolve().parents[1])

FORCED = Path(__file__).parent / "forced_precision"


def pytest_addoption(parser: pytest.Parser):
    parser.addoption(
        "--precision",
        choices=("auto", "fp32", "bf16"),
        default="auto",
        help="what the processor is said to compute in fast, here and in every child process",
    )


def pytest_configure(config: pytest.Config):
    """Makes this process and its children believe that the processor has bf16, or has not."""
    precision = config.getoption("--precision")
    if precision == "auto":
        return
    os.environ["REGRAFT_TESTS_PRECISION"] = precision
    paths = [str(FORCED), os.environ.get("PYTHONPATH", "")]
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    import torch

    torch.cpu.get_capabilities = lambda: {"avx512_bf16": precision == "bf16"}


def pytest_collection_finish():
    """Spares garbage collections the objects of the libraries, a million of which never die."""
    gc.collect()
    gc.freeze()


def pytest_sessionfinish():
    """Libraries that count their objects would call them leaked at the end."""
    gc.unfreeze()


@pytest.fixture(autouse=True)
def default_logging():
    """The logger as it is after import: commands in this process set it up for their screen."""
    logger = logging.getLogger("regraft")
    _reset(logger)
    yield
    _reset(logger)


def _reset(logger: logging.Logger):
    logger.handlers.clear()
    if logger.level != logging.WARNING:  # setLevel empties a cache of every logger
        logger.setLevel(logging.WARNING)  # ZenML sets the root's to INFO in whatever imports it
    logger.propagate = True


def pytest_collection_modifyitems(items: list[pytest.Item]):
    """The pipeline tier first: its files take longest, and a worker takes whole files."""
    items.sort(key=lambda item: item.get_closest_marker("pipeline") is None)
