"""The settings that an attempt inherits, and the guards that are weaker than in them."""

import logging
from collections.abc import Mapping

from regraft.core.config import Config, config_from_flat, weaker_guards
from regraft.core.errors import ConfigError
from regraft.operations import journal

logger = logging.getLogger("regraft.retrain")


def inherited_settings(config: Config) -> dict[str, str] | None:
    """Return the settings, as Config.flat() returns them, that a call without settings has.

    They are those of the last attempt that was judged, else those of the model that serves (or, if
    none does, of the newest); None if there is no model.

    Raises:
        JournalBroken: a record cannot be read.
    """
    return _settings_after(_last_judged(config), config)


def _last_judged(config: Config) -> journal.Attempt | None:
    return journal.last_judged(config.retrain.journal_url, config.tracking.name)


def _settings_after(last: journal.Attempt | None, config: Config) -> dict[str, str] | None:
    defaults = Config().flat()
    if last is not None:
        return defaults | last.settings
    from regraft import registry  # imports MLflow, which a skip does without

    aliases = registry.get_aliases(config.tracking, config.tracking.name)
    number = aliases.get(registry.CHAMPION, aliases.get(registry.CHALLENGER))
    if number is None:
        return None
    version = registry.find(config.tracking, config.tracking.name, str(number))
    return defaults | registry.load_card(config.tracking, version).config


def find_weakened(config: Config) -> dict[str, str]:
    """Return {setting: value before} of each guard that is weaker than it was.

    Compared with the settings that the call inherits. A guard that the last attempt had weakened
    itself is compared with the value before, so a weaker guard is named until it is as strong
    again.

    Raises:
        JournalBroken: a record cannot be read.
    """
    last = _last_judged(config)
    before = _settings_after(last, config)
    if before is None:
        return {}
    try:
        compared = config_from_flat(before | (last.weakened if last else {}))
    except ConfigError as error:  # of another version of Regraft; this call has its own settings
        logger.warning("retrain: cannot compare with the guards before: %s", error)
        return {}
    return weaker_guards(compared, config)


def describe_weakened(weakened: Mapping[str, str], settings: Mapping[str, str]) -> str:
    """Return the weaker guards in words, "" if there is none.

    Args:
        weakened: {setting: value before}, see find_weakened().
        settings: of the attempt, as Config.flat() returns them; a default may be left out.
    """
    flat = Config().flat() | dict(settings)
    changes = [f"{setting}={flat[setting]} (was {was})" for setting, was in weakened.items()]
    return f"weaker than before: {', '.join(changes)}" if changes else ""
