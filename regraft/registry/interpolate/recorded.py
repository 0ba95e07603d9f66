"""Load the champion of a blend by its content hash, and repeat a recorded blend."""

from collections.abc import Mapping
from dataclasses import replace

from regraft import registry
from regraft.core.config import TrackingConfig
from regraft.core.errors import ModelNotFound
from regraft.model.card import Card
from regraft.model.classifier import NO_NAMES, ImageClassifier
from regraft.registry.blend_record import read_blend
from regraft.registry.interpolate.blend import align_champion, blend_models
from regraft.registry.versions import find_by_content
from regraft.training.tune import Challenger


def load_champion(tracking: TrackingConfig, content_hash: str) -> ImageClassifier | None:
    """Return the registered model with this content hash, None for "".

    Args:
        content_hash: not an alias. An alias can move to another model, and a cached step would not
            notice.

    Raises:
        ModelNotFound: the model is no longer registered.
    """
    if not content_hash:
        return None
    version = find_by_content(tracking, content_hash)
    if version is None:
        raise ModelNotFound(
            f"Expected the model with content {content_hash[:12]} among the versions of "
            f"{tracking.name} in {tracking.uri}, got none: it was deleted meanwhile. Run the same "
            "command again."
        )
    return registry.load(tracking, version)


def repeat_blend(
    challenger: Challenger,
    card: Card,
    tracking: TrackingConfig,
    renamed: Mapping[str, str] = NO_NAMES,
) -> Challenger:
    """Return the retrained challenger, blended as the card records; unchanged without a record.

    Args:
        card: of the model to reproduce. renamed: classes.renamed of its configuration.

    Raises:
        ModelNotFound: the champion of the blend is no longer registered.
    """
    blend = read_blend(card)
    champion = load_champion(tracking, blend.champion if blend else "")
    if blend is None or champion is None:
        return challenger
    aligned = align_champion(champion, challenger.classifier, renamed)
    return replace(challenger, classifier=blend_models(aligned, challenger.classifier, blend.alpha))
