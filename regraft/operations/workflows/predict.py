"""The workflows predict and predict-batch: labels for photos, by a registered model."""

from typing import TYPE_CHECKING, Literal

from regraft.core.config import Config, PredictConfig, fill_empty
from regraft.core.state import State, fix_places, places
from regraft.operations.workflows.runner import PipelineRunner
from regraft.operations.workflows.settings import (
    check_place,
    reading_store,
    refuse_target_risk,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    from regraft.model.classifier import ImageClassifier
    from regraft.operations.batch import BatchRequest, BatchSummary
    from regraft.registry import RegisteredVersion


def predict(
    photos: "Sequence[str]", model: str, config: Config, state: State
) -> "tuple[RegisteredVersion, pd.DataFrame]":
    """Label photos with a registered model.

    Args:
        photos: paths or URLs of photos, or folders of them.
        model: "name@alias", "name/3" or "name"; "" means the only champion.
        state: opened and activated.

    Returns:
        The version, and a row a photo: path, label, confidence, error, "prob:CLASS" each.
    """
    from regraft import registry
    from regraft.evaluation.predict import predict as predict_photos

    refuse_target_risk(config)
    tracking = places(state).tracking
    version = registry.resolve(tracking, model)
    classifier = _with_threshold(registry.load(tracking, version), config.predict)
    store = reading_store(config.embed, state)
    reference = f"{version.name}/{version.version}"
    return version, predict_photos(classifier, list(photos), reference, store, config.ingest)


def batch_request(
    photos: "Sequence[str]", out: str, model: str, config: Config, state: State
) -> "tuple[BatchRequest, Config]":
    """Return the request and the complete configuration of a batch prediction.

    Args:
        photos: folders, manifests with a column "image", or photos; paths or URLs.
        out: folder of the answers; path or URL.
        model: as in predict().
    """
    from regraft import registry
    from regraft.core.files import absolute
    from regraft.operations.batch import BatchRequest

    inputs, folder = [check_place(place) for place in photos], check_place(out)
    refuse_target_risk(config)
    config = config.model_copy(update={"embed": config.embed.without_eviction()})
    config = fill_empty(config, {"tracking.uri": fix_places(config, state).tracking.uri})
    version = registry.resolve(config.tracking, model)
    request = BatchRequest(
        photos=tuple(absolute(place) for place in inputs),
        out=absolute(folder),
        model=f"{version.name}/{version.version}",
        ingest=config.ingest,
        abstain_below=_threshold(config.predict),
    )
    return request, fill_empty(config, {"tracking.name": version.name})


def predict_batch(
    request: "BatchRequest", config: Config, runner: PipelineRunner
) -> "BatchSummary":
    """Label any number of photos, a shard at a time; finished shards are not repeated."""
    run = runner.run("predict", config.tracking, request, config, n_workers=config.batch.n_parallel)
    summary: BatchSummary = run.load("predict_summary")
    return summary


def _threshold(rule: PredictConfig) -> float | Literal["card"]:
    """Return abstain_below if it is set, else "card": that of the model's card."""
    return rule.abstain_below if "abstain_below" in rule.model_fields_set else "card"


def _with_threshold(classifier: "ImageClassifier", rule: PredictConfig) -> "ImageClassifier":
    """Return the classifier with abstain_below, if it is set; 0 means that it never abstains."""
    from regraft.evaluation.predict import with_abstention

    is_set = "abstain_below" in rule.model_fields_set
    return with_abstention(classifier, rule.abstain_below) if is_set else classifier
