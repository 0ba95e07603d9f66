"""Whether a registered model answers as it was judged, in every way in which it can be asked."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import mlflow.pyfunc
import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.pyfunc import PyFuncModel
from safetensors import SafetensorError
from yaml import YAMLError

from regraft.core.config import TrackingConfig
from regraft.core.errors import RegraftError, UnusablePhoto
from regraft.core.files import access_errors
from regraft.data.ingest import NO_LIMIT, decode, read_bytes
from regraft.evaluation.predict import predict
from regraft.model.classifier import load_classifier
from regraft.registry.serving import ask, served
from regraft.registry.versions import BUNDLE_PATH, RegisteredVersion, downloaded

# What loading or asking a model raises whose files are damaged: they hold code, which may raise
# nearly anything. Not MemoryError and the like, which are no fault of the model's.
UNUSABLE = (
    *(MlflowException, RegraftError, SafetensorError, YAMLError, OSError, RuntimeError, ValueError),
    *(ArithmeticError, AttributeError, EOFError, ImportError, LookupError, NameError, SyntaxError),
    *(AssertionError, TypeError),
)
_N_ERROR_CHARACTERS = 500  # a line that a table can hold

Way = Literal["pyfunc", "predict", "server"]


@dataclass(frozen=True)
class WayParity:
    """How far the answers that one way gives are from the expected ones.

    way: pyfunc = loaded by MLflow into this process and given the files' bytes; predict = the
        bundle behind `regraft predict`, given paths; server = `mlflow models serve` over HTTP.
    n: photos that were asked about.
    max_difference: largest difference of a probability; infinite if the classes, their order or the
        photos are not the same, or if it could not be asked.
    agreement: share of photos with the same label, in [0, 1].
    error: why it could not be asked, one line; "" if it could.
    """

    way: Way
    n: int
    max_difference: float
    agreement: float
    error: str = ""


def golden_parity(
    version: RegisteredVersion,
    paths: list[str],
    expected: pd.DataFrame,
    tracking: TrackingConfig,
    serve: bool,
) -> tuple[WayParity, ...]:
    """A row for each way of asking the model about the photos.

    A model that cannot be asked, or not even be fetched, is what is looked for: no error.

    Args:
        paths: of the photos, at least one; local paths or fsspec URLs.
        expected: a row a photo, in the columns and the order of classes of predict.answers().
        serve: whether to ask a real server too, which takes seconds to start.

    Raises:
        UnusablePhoto: a photo cannot be read, which is no fault of the model's.
    """
    files = [_readable(path) for path in paths]
    model_url = version.bundle_url.removesuffix(BUNDLE_PATH)
    try:
        with downloaded(tracking, model_url) as folder:
            asked = _ways(folder, paths, files, serve)
            return tuple(_compared(way, expected, answer) for way, answer in asked.items())
    except (*UNUSABLE, *access_errors()) as error:  # of fetching: what is asked raises nothing
        ways = _ways(Path(), paths, files, serve)
        return tuple(_unasked(way, len(paths), error) for way in ways)


def golden_photos(test: pd.DataFrame, n: int) -> pd.DataFrame:
    """At most n rows of the table: of each class in turn the one whose sha256 is the lowest.

    Args:
        test: with the columns label, sha256 and path.
        n: >= 1; with fewer photos than classes, the classes that come first by name.
    """
    ordered = test.sort_values(["label", "sha256", "path"])
    turn = ordered.groupby("label").cumcount()
    return ordered.loc[turn.sort_values(kind="stable").index[:n]]


@contextmanager
def opened(model: Path) -> Iterator[PyFuncModel]:
    """The model as MLflow loads it, from a folder that lives as long as the block.

    MLflow puts the model's copy of our code in front of the import path and leaves it there; here
    it is taken out again.
    """
    before = list(sys.path)
    try:
        yield mlflow.pyfunc.load_model(str(model))
    finally:
        sys.path[:] = before


def difference(expected: pd.DataFrame, given: pd.DataFrame) -> float:
    """The largest difference of a probability; infinite where there is no such number.

    Args:
        expected, given: tables of predict.answers().
    """
    if list(expected.columns) != list(given.columns) or len(expected) != len(given):
        return float("inf")
    numbers = expected.columns.drop("label")
    pair = [table[numbers].to_numpy(dtype=float) for table in (expected, given)]  # (N, K + 1)
    largest = np.abs(pair[0] - pair[1]).max(initial=-1.0)
    return float(largest) if largest >= 0 else float("inf")  # not a number, or no photo


def _agreement(expected: pd.DataFrame, given: pd.DataFrame) -> float:
    if len(expected) != len(given) or expected.empty:
        return 0.0
    return float((expected.label.to_numpy() == given.label.to_numpy()).mean())


def _readable(path: str) -> bytes:
    try:
        data = read_bytes(path)
        decode(data, NO_LIMIT)
    except UnusablePhoto as error:
        raise UnusablePhoto(error.reason, f"{error.detail} (in {path})") from None
    return data


def _ways(
    model: Path, paths: list[str], files: list[bytes], serve: bool
) -> dict[Way, Callable[[], pd.DataFrame]]:
    """How the model in the folder is asked; nothing is asked yet."""
    ways: dict[Way, Callable[[], pd.DataFrame]] = {
        "pyfunc": lambda: _by_pyfunc(model, files),
        "predict": lambda: _by_predict(model, paths),
    }
    return ways | {"server": lambda: _by_server(model, files)} if serve else ways


def _by_pyfunc(model: Path, files: list[bytes]) -> pd.DataFrame:
    with opened(model) as loaded:
        answers: pd.DataFrame = loaded.predict(pd.DataFrame({"image": files}, dtype=object))
        return answers


def _by_predict(model: Path, paths: list[str]) -> pd.DataFrame:
    classifier = load_classifier(model / BUNDLE_PATH.lstrip("/"))
    return predict(classifier, paths).drop(columns=["path", "error"])


def _by_server(model: Path, files: list[bytes]) -> pd.DataFrame:
    with served(model) as url:
        return ask(url, files)


def _compared(way: Way, expected: pd.DataFrame, answer: Callable[[], pd.DataFrame]) -> WayParity:
    try:
        given = answer()
        apart, agreement = difference(expected, given), _agreement(expected, given)
    except (*UNUSABLE, *access_errors()) as error:
        return _unasked(way, len(expected), error)
    return WayParity(way, len(expected), apart, agreement)


def _unasked(way: Way, n: int, error: BaseException) -> WayParity:
    line = " ".join(f"{type(error).__name__}: {error}".split())
    if len(line) > _N_ERROR_CHARACTERS:  # what was wanted stands in front, what went wrong behind
        half = _N_ERROR_CHARACTERS // 2
        line = f"{line[:half]} ... {line[-half:]}"
    return WayParity(way, n, float("inf"), 0.0, line)
