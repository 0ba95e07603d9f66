"""regraft predict: photos in, labels out."""

from typing import TYPE_CHECKING, Annotated

import typer

from regraft.cli.options import (
    DEFAULT_STATE,
    ConfigOption,
    ModelOption,
    SetOption,
    StateOption,
    is_debug,
    store_of,
)
from regraft.core.config import TrackingConfig, load_config

if TYPE_CHECKING:
    from regraft.core.config import PredictConfig
    from regraft.model.classifier import ImageClassifier

NO_EVICTION_GB = 1e6  # predicting adds to the store; how much it may hold is a training's to say


def predict(
    photos: Annotated[list[str], typer.Argument(help="Photos, folders of photos, or URLs.")],
    model: ModelOption = "",
    out: Annotated[
        str, typer.Option(help="Where to write: .parquet, .csv or .json; left out: the screen.")
    ] = "",
    config: ConfigOption = None,
    set_: SetOption = [],  # noqa: B006 - typer copies it
    state: StateOption = DEFAULT_STATE,
) -> None:
    """Labels photos with the champion; a photo that cannot be read gets its reason instead.

    Ends with 0 if at least one photo could be read, with 3 if not one could.
    """
    from regraft.core.errors import DataError
    from regraft.core.state import activate, existing_state
    from regraft.evaluation.predict import check_format, write_predictions
    from regraft.evaluation.predict import predict as core_predict

    settings = load_config(config, tuple(set_))
    check_rule(settings.predict)
    if out:
        check_format(out)  # before the photos are labelled, not after
    opened = existing_state(state, is_debug())
    activate(opened)
    from regraft import registry

    tracking = TrackingConfig(uri=opened.tracking_uri)
    version = registry.resolve(tracking, model)
    store = store_of(settings.embed.model_copy(update={"max_gb": NO_EVICTION_GB}), opened)
    called = f"{version.name}/{version.version}"
    classifier = _as_unsure_as_asked(registry.load(tracking, version), settings.predict)
    table = core_predict(classifier, photos, called, store)
    if out:
        write_predictions(table, out)
        n_read = int((table.error == "").sum())
        typer.echo(f"{n_read} of {len(table)} photos labelled by {called}: {out}")
    else:
        shown = table.loc[:, ["path", "label", "confidence", "error"]]
        typer.echo(shown.to_string(index=False, float_format="%.3f"))
    if (table.error != "").all():
        typer.echo(f"None of the {len(table)} photos could be read.", err=True)
        raise typer.Exit(DataError.exit_code)


def check_rule(rule: "PredictConfig") -> None:
    """Refuses what only a training can carry out.

    Raises:
        ConfigError: a risk is asked for.
    """
    from regraft.core.errors import ConfigError

    if rule.target_risk:
        raise ConfigError(
            f"predict.target_risk={rule.target_risk:g} is for a training: there the confidence is "
            "chosen on the validation photos and kept in the model's card, which is obeyed here. "
            "Leave it out, or set predict.abstain_below for this call."
        )


def _as_unsure_as_asked(classifier: "ImageClassifier", rule: "PredictConfig") -> "ImageClassifier":
    """As its card says, unless abstain_below is set; a 0 that was written answers every photo."""
    from regraft.evaluation.predict import abstaining

    is_set = "abstain_below" in rule.model_fields_set
    return abstaining(classifier, rule.abstain_below) if is_set else classifier
