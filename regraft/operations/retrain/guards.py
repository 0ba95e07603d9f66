"""Guards that an attempt has weaker than the last judged model had."""

from collections.abc import Mapping

from regraft.core.config import Config, config_from_flat, weaker_guards
from regraft.operations import journal


def find_weakened(config: Config) -> dict[str, str]:
    """Return {setting: value before} of each guard that is weaker than it was.

    Compared with the last attempt that was judged; a guard that this attempt had weakened itself
    is compared with the value before, so a weaker guard is named until it is as strong again.
    Without such an attempt, compared with the settings of the champion.

    Raises:
        JournalBroken: a record cannot be read.
    """
    last = journal.last_judged(config.retrain.journal_url, config.tracking.name)
    if last is not None:
        settings: Mapping[str, str] = last.settings | last.weakened
    else:
        from regraft import registry  # imports MLflow, which a skip does without

        aliases = registry.get_aliases(config.tracking, config.tracking.name)
        number = aliases.get(registry.CHAMPION, aliases.get(registry.CHALLENGER))
        if number is None:
            return {}
        version = registry.find(config.tracking, config.tracking.name, str(number))
        settings = registry.load_card(config.tracking, version).config
    return weaker_guards(config_from_flat(settings), config)


def describe_weakened(weakened: Mapping[str, str], settings: Mapping[str, str]) -> str:
    """Return the weaker guards in words, "" if there is none.

    Args:
        weakened: {setting: value before}, see find_weakened().
        settings: of the attempt, as Config.flat() returns them; a default may be left out.
    """
    flat = Config().flat() | settings
    changes = [f"{setting}={flat[setting]} (was {was})" for setting, was in weakened.items()]
    return f"weaker than before: {', '.join(changes)}" if changes else ""
