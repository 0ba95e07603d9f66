"""The models that a blend is made of, found again by their content."""

from collections.abc import Mapping
from dataclasses import replace

from regraft import registry
from regraft.core.config import TrackingConfig
from regraft.core.errors import ModelNotFound
from regraft.model.classifier import NO_NAMES, Card, ImageClassifier
from regraft.registry.interpolate.blend import aligned, blend_of, blended
from regraft.registry.versions import with_content
from regraft.training.tune import Challenger


def champion_of(tracking: TrackingConfig, content_hash: str) -> ImageClassifier | None:
    """The registered model with this content, None for "".

    Args:
        content_hash: not an alias, which means another model tomorrow: a cache would not notice.

    Raises:
        ModelNotFound: there is none any more.
    """
    if not content_hash:
        return None
    version = with_content(tracking, content_hash)
    if version is None:
        raise ModelNotFound(
            f"Expected the model {content_hash[:12]} among the versions of {tracking.name} in "
            f"{tracking.uri}, found none: it was removed since. Run the same command again."
        )
    return registry.load(tracking, version)


def blended_as_recorded(
    challenger: Challenger,
    card: Card,
    tracking: TrackingConfig,
    renamed: Mapping[str, str] = NO_NAMES,
) -> Challenger:
    """The challenger, trained again, blended as the card says that it was then.

    Args:
        card: of the model that is made again. renamed: as it was configured then.

    Raises:
        ModelNotFound: the champion of then is not in the registry any more.
    """
    blend = blend_of(card)
    champion = champion_of(tracking, blend.champion if blend else "")
    if blend is None or champion is None:
        return challenger
    known = aligned(champion, challenger.classifier, renamed)
    return replace(challenger, classifier=blended(known, challenger.classifier, blend.alpha))
