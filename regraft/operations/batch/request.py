"""Who answers: the version that is asked for, and as unsure as it is told to be."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from regraft import registry
from regraft.core.config import BatchConfig, EmbedConfig, Fraction, TrackingConfig
from regraft.core.errors import ReloadMismatch
from regraft.evaluation.predict import abstaining
from regraft.model.classifier import ImageClassifier
from regraft.operations.batch.answer import ONE_NETWORK, ShardAnswers, answer_shard
from regraft.operations.batch.folder import Answerer, Shard
from regraft.operations.batch.plan import BatchPlan, plan


class BatchRequest(BaseModel):
    """What is to be labelled, by what, and where the answers go.

    photos: folders, manifests with a column "image", single photos; local paths or URLs.
    out: folder of the answers; local path or URL.
    model: "NAME@ALIAS", "NAME/7" or "NAME"; "" = the only champion.
    abstain_below: least confidence of an answer; card = as the model's card says.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    photos: Annotated[tuple[str, ...], Field(min_length=1)]
    out: str
    model: str = ""
    abstain_below: Literal["card"] | Fraction = "card"


def plan_batch(request: BatchRequest, config: BatchConfig, tracking: TrackingConfig) -> BatchPlan:
    """What is to be answered; see plan() for what is written and raised.

    Raises:
        ModelNotFound: no such model.
    """
    answerer = answerer_of(request, tracking)
    return plan(request.photos, request.out, answerer, config.shard_photos)


def answerer_of(request: BatchRequest, tracking: TrackingConfig) -> Answerer:
    """The version that the request means now.

    Raises:
        ModelNotFound: no such model.
    """
    version = registry.resolve(tracking, request.model)
    classifier = registry.load(tracking, version)
    below = request.abstain_below
    if below == "card":
        below = classifier.card.abstain_below
    content = abstaining(classifier, below).content_hash
    name, number = version.name, version.version
    return Answerer(name=name, version=number, abstain_below=below, content=content)


def answer(
    shard: Shard, answerer: Answerer, store: EmbedConfig, tracking: TrackingConfig
) -> ShardAnswers:
    """The answers about a shard's photos; see answer_shard() and classifier_of()."""
    with ONE_NETWORK:
        classifier = classifier_of(answerer, tracking)
    return answer_shard(shard, classifier, answerer, store)


def classifier_of(answerer: Answerer, tracking: TrackingConfig) -> ImageClassifier:
    """The classifier that was planned with.

    Raises:
        ModelNotFound: it has gone from the registry.
        ReloadMismatch: another one has its name and number now.
    """
    version = registry.find(tracking, answerer.name, str(answerer.version))
    classifier = abstaining(registry.load(tracking, version), answerer.abstain_below)
    if classifier.content_hash != answerer.content:
        raise ReloadMismatch(
            f"Expected {answerer.called} to be the model of {answerer.content[:12]} that these "
            f"shards were planned for, but it is {classifier.content_hash[:12]}. Run the same "
            "command again: they are planned anew."
        )
    return classifier
