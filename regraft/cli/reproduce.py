"""regraft reproduce: a registered model trained again from its own record, and compared."""

from typing import Annotated

import typer

from regraft.cli.options import DEFAULT_STATE, SetOption, StateOption
from regraft.cli.session import configure_logging, known_state
from regraft.core.state import places


def reproduce(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help="NAME, NAME@ALIAS or NAME/VERSION; default: the only champion."
        ),
    ] = "",
    set_: SetOption = [],  # noqa: B006 - typer copies it
    state: StateOption = DEFAULT_STATE,
) -> None:
    """Train a version again as its card records, and compare; nothing is registered.

    Exit code 0 if it is the same model, or predicts the same for every test photo; else 5. Places
    that have changed are given with --set; --set "embed.store_url=''" computes every embedding
    again.
    """
    opened = known_state(state)
    configure_logging()
    from regraft import registry
    from regraft.promotion.reproduce import check_reproduced
    from regraft.promotion.reproduce import reproduce as reproduce_version

    tracking = places(opened).tracking
    result = reproduce_version(registry.resolve(tracking, model), tracking, tuple(set_))
    typer.echo(str(result))
    check_reproduced(result)
