"""Compare the predictions of a registered model with its evaluation, for each way to serve it."""

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

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
from regraft.registry.channel_parity import Channel, ChannelParity
from regraft.registry.serving import request_predictions, start_server
from regraft.registry.versions import BUNDLE_PATH, RegisteredVersion, downloaded

# Errors of loading or calling a model with damaged files. The files contain code, which can raise
# almost anything. MemoryError and similar errors are not included: the model does not cause them.
MODEL_ERRORS = (
    MlflowException,
    RegraftError,
    SafetensorError,
    YAMLError,
    OSError,
    RuntimeError,
    ValueError,
    ArithmeticError,
    AttributeError,
    EOFError,
    ImportError,
    LookupError,
    NameError,
    SyntaxError,
    AssertionError,
    TypeError,
)
Predictor = Callable[[list[bytes]], pd.DataFrame]  # image files -> a table of predictions
_N_ERROR_CHARACTERS = 500  # fits into one line of a table


def golden_parity(
    version: RegisteredVersion,
    paths: list[str],
    expected: pd.DataFrame,
    tracking: TrackingConfig,
    server: Predictor | None,
) -> tuple[ChannelParity, ...]:
    """Return the parity of each channel on the golden photos.

    A model that cannot be downloaded, loaded or called gives rows with an error. It does not raise.

    Args:
        paths: of the photos, at least one; local paths or fsspec URLs.
        expected: a row for each photo, with the columns and the class order of
            predict.prediction_table().
        server: the channel "server", from starting_server(); None leaves it out.

    Raises:
        UnusablePhoto: a photo cannot be read. The model does not cause this.
    """
    files = [_checked_bytes(path) for path in paths]
    model_url = version.bundle_url.removesuffix(BUNDLE_PATH)
    try:
        with downloaded(tracking, model_url) as folder:
            channels = _channels(folder, paths, files, server)
            return tuple(_compared(name, expected, call) for name, call in channels.items())
    except (*MODEL_ERRORS, *access_errors()) as error:  # of the download: _compared() raises none
        channels = _channels(Path(), paths, files, server)
        return tuple(_failed(name, len(paths), error) for name in channels)


@contextmanager
def starting_server(version: RegisteredVersion, tracking: TrackingConfig) -> Iterator[Predictor]:
    """Start a server of the version, and yield a function that waits for it and asks it.

    A start takes seconds, most of them for imports on one core; other work can be done meanwhile.
    The block does not raise for a model that cannot be downloaded or served: the function does.
    """
    with ExitStack() as stack:
        try:
            model_url = version.bundle_url.removesuffix(BUNDLE_PATH)
            server = stack.enter_context(
                start_server(stack.enter_context(downloaded(tracking, model_url)))
            )
        except (*MODEL_ERRORS, *access_errors()) as error:
            failure = error

            def refuse(files: list[bytes]) -> pd.DataFrame:
                raise failure

            yield refuse
            return
        yield lambda files: request_predictions(server.wait(), files)


def golden_photos(test: pd.DataFrame, n: int) -> pd.DataFrame:
    """Return at most n rows of the table, taken from the classes in turn, lowest sha256 first.

    Args:
        test: with the columns label, sha256 and path.
        n: >= 1; with fewer photos than classes, the classes that come first by name.
    """
    ordered = test.sort_values(["label", "sha256", "path"])
    rank = ordered.groupby("label").cumcount()
    return ordered.loc[rank.sort_values(kind="stable").index[:n]]


@contextmanager
def open_model(model: Path) -> Iterator[PyFuncModel]:
    """Yield the model as MLflow loads it; its folder must exist until the end of the block.

    MLflow puts the model's copy of our code first on the import path and leaves it there. The
    import path is restored at the end of the block.
    """
    before = list(sys.path)
    try:
        yield mlflow.pyfunc.load_model(str(model))
    finally:
        sys.path[:] = before


def max_difference(expected: pd.DataFrame, given: pd.DataFrame) -> float:
    """Return the largest difference of a probability, infinite if the tables do not match.

    Args:
        expected, given: tables of predict.prediction_table().
    """
    if list(expected.columns) != list(given.columns) or len(expected) != len(given):
        return float("inf")
    numbers = expected.columns.drop("label")
    pair = [table[numbers].to_numpy(dtype=float) for table in (expected, given)]  # (N, K + 1)
    largest = np.abs(pair[0] - pair[1]).max(initial=-1.0)
    return float(largest) if largest >= 0 else float("inf")  # NaN, or no photo


def _agreement(expected: pd.DataFrame, given: pd.DataFrame) -> float:
    if len(expected) != len(given) or expected.empty:
        return 0.0
    return float((expected.label.to_numpy() == given.label.to_numpy()).mean())


def _checked_bytes(path: str) -> bytes:
    """Return the bytes of a photo after a test that it can be decoded."""
    try:
        data = read_bytes(path)
        decode(data, NO_LIMIT)
    except UnusablePhoto as error:
        raise UnusablePhoto(error.reason, f"{error.detail} (in {path})") from None
    return data


def _channels(
    model: Path, paths: list[str], files: list[bytes], server: Predictor | None
) -> dict[Channel, Callable[[], pd.DataFrame]]:
    """Return a function for each channel that gives its predictions; no function is called yet."""
    channels: dict[Channel, Callable[[], pd.DataFrame]] = {
        "pyfunc": lambda: _by_pyfunc(model, files),
        "predict": lambda: _by_predict(model, paths),
    }
    return channels | {"server": lambda: server(files)} if server else channels


def _by_pyfunc(model: Path, files: list[bytes]) -> pd.DataFrame:
    with open_model(model) as loaded:
        answers: pd.DataFrame = loaded.predict(pd.DataFrame({"image": files}, dtype=object))
        return answers


def _by_predict(model: Path, paths: list[str]) -> pd.DataFrame:
    classifier = load_classifier(model / BUNDLE_PATH.lstrip("/"))
    return predict(classifier, paths).drop(columns=["path", "error"])


def _compared(
    channel: Channel, expected: pd.DataFrame, call: Callable[[], pd.DataFrame]
) -> ChannelParity:
    try:
        given = call()
        distance, agreement = max_difference(expected, given), _agreement(expected, given)
    except (*MODEL_ERRORS, *access_errors()) as error:
        return _failed(channel, len(expected), error)
    return ChannelParity(channel, len(expected), distance, agreement)


def _failed(channel: Channel, n: int, error: BaseException) -> ChannelParity:
    line = " ".join(f"{type(error).__name__}: {error}".split())
    # The start of a message names what was expected, the end names the cause: keep both.
    if len(line) > _N_ERROR_CHARACTERS:
        half = _N_ERROR_CHARACTERS // 2
        line = f"{line[:half]} ... {line[-half:]}"
    return ChannelParity(channel, n, float("inf"), 0.0, line)
