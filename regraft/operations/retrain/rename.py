"""A rename of classes that needs no training."""

from regraft import registry
from regraft.core.config import Config
from regraft.data.ingest import ingest
from regraft.data.split import split
from regraft.model.card import Card
from regraft.model.classifier import contract_of
from regraft.operations.retrain.delta import compute_delta

_TRAINING = ("backbone.", "freeze.", "tune.")


def is_pure_rename(config: Config) -> bool:
    """Return whether only names of the champion's classes differ from its training.

    The photos are read only if classes.renamed names a class of the champion.

    Args:
        config: complete, with its backbone pinned.

    Raises:
        ConfigError: classes.renamed would merge two classes.
        Others: as ingest() and split().
    """
    tracking, renamed = config.tracking, config.classes.renamed
    serving = registry.serving_version(tracking, tracking.name) if renamed else None
    if serving is None:
        return False
    champion = registry.find(tracking, tracking.name, str(serving))
    card = registry.load_card(tracking, champion)
    if not (renamed.keys() & set(card.classes) and _was_trained_so(card, config)):
        return False
    splits = split(ingest(config.ingest), config.split, should_remember=False)
    contract = contract_of(card.classes, splits.classes, renamed)
    if contract.added or contract.removed or not contract.renamed:
        return False
    manifest = registry.load_manifest(tracking, champion)
    return not compute_delta(splits, manifest, serving, card.classes, renamed).n_changed


def outdated_names(config: Config) -> tuple[str, ...]:
    """Return the classes of the champion that classes.renamed gives another name."""
    if not config.classes.renamed:
        return ()
    serving = registry.serving_version(config.tracking, config.tracking.name)
    if serving is None:
        return ()
    champion = registry.find(config.tracking, config.tracking.name, str(serving))
    classes = registry.load_card(config.tracking, champion).classes
    new = set(config.classes.renamed.values())
    return tuple(name for name in classes if name in config.classes.renamed and name not in new)


def _was_trained_so(card: Card, config: Config) -> bool:
    """Return whether a training under the configuration is that of the model."""
    then, now = Config().flat() | card.config, config.flat()
    settings = [key for key in now if key.startswith(_TRAINING) and not key.endswith("_url")]
    return all(then[key] == now[key] for key in settings)
