"""regraft predict: photos in, labels out."""

from typing import Annotated

import typer

from commands.options import DEFAULT_STATE, StateOption, is_debug


def predict(
    photos: Annotated[list[str], typer.Argument(help="Photos, folders of photos, or URLs.")],
    model: Annotated[
        str, typer.Option(help="name@alias or name/version; left out: the only champion.")
    ] = "",
    out: Annotated[
        str, typer.Option(help="Where to write: .parquet, .csv or .json; left out: the screen.")
    ] = "",
    state: StateOption = DEFAULT_STATE,
) -> None:
    """Labels photos with the champion; a photo that cannot be read gets its reason instead."""
    from regraft.state import activate, existing_state

    opened = existing_state(state, is_debug())
    activate(opened)
    from regraft import registry
    from regraft.config import TrackingConfig
    from regraft.predict import predict as core_predict
    from regraft.predict import write_predictions

    tracking = TrackingConfig(uri=opened.tracking_uri)
    version = registry.resolve(tracking, model)
    called = f"{version.name}/{version.version}"
    table = core_predict(registry.load(tracking, version), photos, called)
    if out:
        write_predictions(table, out)
        typer.echo(f"{len(table)} photos labelled by {called}: {out}")
    else:
        shown = table.loc[:, ["path", "label", "confidence", "error"]]
        typer.echo(shown.to_string(index=False, float_format="%.3f"))
