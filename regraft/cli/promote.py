"""`regraft promote`: an existing version, judged again on today's photos."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from regraft.cli.mirror import show_on_page
from regraft.cli.options import DEFAULT_STATE, ConfigOption, SetOption, StateOption, is_debug
from regraft.cli.train import ask_if_it_waits, completed, ready_to_run, remembered, talk
from regraft.core.config import Config, load_config, with_settings

if TYPE_CHECKING:
    from regraft.core.state import State
    from regraft.promotion import Verdict
    from regraft.registry import RegisteredVersion


def promote(
    model: Annotated[
        str, typer.Argument(help="NAME, NAME@ALIAS or NAME/VERSION; left out: the challenger.")
    ] = "",
    photos: Annotated[str, typer.Option(help="Left out: the folder it was trained on.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Judge, and change nothing.")] = False,
    config: ConfigOption = None,
    set_: SetOption = [],  # noqa: B006 - typer copies it
    state: StateOption = DEFAULT_STATE,
) -> None:
    """Judges a version against the champion on today's photos; it serves if it proves better."""
    from regraft.core.state import activate, existing_state

    opened = existing_state(state, is_debug())
    activate(opened)
    talk()
    from regraft.core.config import TrackingConfig
    from regraft.registry import CHALLENGER, resolve

    version = resolve(TrackingConfig(uri=opened.tracking_uri), model, CHALLENGER)
    wanted = _rule(version, opened, config, tuple(set_))
    if photos:
        wanted = with_settings(wanted, (f"ingest.photos={json.dumps(photos)}",))
    complete = completed(wanted, wanted.ingest.photos, version.name, opened)
    verdict = _rehearsed(version, complete) if dry_run else _run(version, complete, opened)
    told = verdict.told(f"{version.name}/{version.version}")
    typer.echo(f"\n{told}" + ("\n  (a rehearsal: nothing was changed)" if dry_run else ""))


def _rule(
    version: "RegisteredVersion", state: "State", file: Path | None, settings: tuple[str, ...]
) -> Config:
    """The configuration that the version was made under; a file's instead, but for the photos."""
    from regraft.core.config import TrackingConfig
    from regraft.registry import load

    made_under = remembered(
        load(TrackingConfig(uri=state.tracking_uri), version).card.config, state
    )
    if file is None:
        return with_settings(made_under, settings)
    photos = f"ingest.photos={json.dumps(made_under.ingest.photos)}"
    return load_config(file, (photos, *settings))


def _rehearsed(version: "RegisteredVersion", config: Config) -> "Verdict":
    from regraft.data.ingest import ingest
    from regraft.data.split import split
    from regraft.promotion import rehearse

    splits = split(ingest(config.ingest), config.split, remembers=False)
    return rehearse(version, splits, config)


def _run(version: "RegisteredVersion", config: Config, state: "State") -> "Verdict":
    from regraft.data.ingest import fingerprint

    seen = fingerprint(config.ingest)
    with ready_to_run(config, state) as run_name:
        from pipelines.promote import promote as pipeline

        named = pipeline.with_options(run_name=run_name)
        run = named(config, seen, f"{version.name}/{version.version}")
    ask_if_it_waits(run, config, state)
    show_on_page(state)
    verdict: Verdict = run.steps["promote"].output.load()
    return verdict
