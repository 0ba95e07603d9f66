"""regraft reproduce: a registered model trained again from its own record, and compared."""

from typing import Annotated

import typer

from regraft.cli.options import DEFAULT_STATE, SetOption, StateOption, is_debug
from regraft.cli.train import talk
from regraft.core.config import TrackingConfig


def reproduce(
    model: Annotated[
        str, typer.Argument(help="NAME/V or NAME@ALIAS; left out: the only champion.")
    ] = "",
    set_: SetOption = [],  # noqa: B006 - typer copies it
    state: StateOption = DEFAULT_STATE,
) -> None:
    """Trains a version again as its card says, and compares; nothing is registered.

    Ends with 0 if it is the same model, or one that answers every test photo alike, else with 5.
    What lies elsewhere today is said with --set; --set "embed.store_url=''" computes every photo
    anew.
    """
    from regraft.core.state import activate, existing_state

    opened = existing_state(state, is_debug())
    activate(opened)
    talk()
    from regraft import registry
    from regraft.promotion.reproduce import refuse_another
    from regraft.promotion.reproduce import reproduce as core_reproduce

    tracking = TrackingConfig(uri=opened.tracking_uri)
    found = core_reproduce(registry.resolve(tracking, model), tracking, tuple(set_))
    typer.echo(str(found))
    refuse_another(found)
