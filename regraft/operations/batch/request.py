"""A request for batch prediction, and the model version that it refers to."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from regraft import registry
from regraft.core.config import BatchConfig, EmbedConfig, Fraction, IngestConfig, TrackingConfig
from regraft.core.errors import ReloadMismatch
from regraft.evaluation.predict import with_abstention
from regraft.model.classifier import ImageClassifier
from regraft.operations.batch.folder import Predictor, Shard
from regraft.operations.batch.plan import BatchPlan, plan
from regraft.operations.batch.predict import ONE_NETWORK, ShardResult, predict_shard


class BatchRequest(BaseModel):
    """The photos to label, the model, and the output folder.

    photos: folders, manifests with a column "image", single photos; local paths or URLs.
    out: folder of the predictions; local path or URL.
    model: "NAME@ALIAS", "NAME/7" or "NAME"; "" = the only champion.
    abstain_below: minimum confidence of a prediction, in [0, 1]; card = the model card's value.
    ingest: schemes and roots limit which photos a manifest may name.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    photos: Annotated[tuple[str, ...], Field(min_length=1)]
    out: str
    model: str = ""
    abstain_below: Literal["card"] | Fraction = "card"
    ingest: IngestConfig = IngestConfig()


def plan_batch(request: BatchRequest, config: BatchConfig, tracking: TrackingConfig) -> BatchPlan:
    """Write the plan of the request, and return it.

    Raises:
        ModelNotFound: the model does not exist.
        NoPhotos, ManifestError: as plan().
    """
    predictor = resolve_predictor(request, tracking)
    return plan(request.photos, request.out, predictor, config.shard_photos, request.ingest)


def resolve_predictor(request: BatchRequest, tracking: TrackingConfig) -> Predictor:
    """Return the version that the request's reference resolves to now.

    Raises:
        ModelNotFound: the model does not exist.
    """
    version = registry.resolve(tracking, request.model)
    classifier = registry.load(tracking, version)
    below = request.abstain_below
    if below == "card":
        below = classifier.card.abstain_below
    content = with_abstention(classifier, below).content_hash
    name, number = version.name, version.version
    return Predictor(name=name, version=number, abstain_below=below, content=content)


def run_shard(
    shard: Shard, predictor: Predictor, store: EmbedConfig, tracking: TrackingConfig
) -> ShardResult:
    """Load the classifier, write the predictions of a shard, and return what was done.

    Raises:
        ModelNotFound, ReloadMismatch: as load_classifier().
        ManifestError, ConfigError: as predict_shard().
    """
    with ONE_NETWORK:
        classifier = load_classifier(predictor, tracking)
    return predict_shard(shard, classifier, predictor, store)


def load_classifier(predictor: Predictor, tracking: TrackingConfig) -> ImageClassifier:
    """Return the classifier of the predictor.

    Raises:
        ModelNotFound: the version was deleted from the registry.
        ReloadMismatch: another model has this name and version now.
    """
    version = registry.find(tracking, predictor.name, str(predictor.version))
    classifier = with_abstention(registry.load(tracking, version), predictor.abstain_below)
    if classifier.content_hash != predictor.content:
        raise ReloadMismatch(
            f"Expected {predictor.reference} to be the model {predictor.content[:12]} of the plan, "
            f"got the model {classifier.content_hash[:12]}. Run the same command again, which "
            "makes a new plan."
        )
    return classifier
