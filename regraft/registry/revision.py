"""A revision of the champion: its weights under other class names or another threshold."""

from dataclasses import fields, replace

import pandas as pd

from regraft.core.config import Config, FreezeConfig
from regraft.data.split import Splits
from regraft.model.card import Card
from regraft.model.classifier import contract_of
from regraft.model.freeze import FreezePlan, audit, freeze, frozen_hashes
from regraft.registry.versions import RegisteredVersion, load, load_manifest
from regraft.training.tune import Challenger
from regraft.training.tune.challenger import EpochRecord

RECORD = "retrain.revised"  # key in Card.config: content hash of the revised model
_REVISED_SETTINGS = ("predict.abstain_below", "predict.target_risk")
# What a training depends on: these settings of a revision are those of its weights.
_TRAINED_SECTIONS = ("split.", "backbone.", "freeze.", "tune.", "retrain.interpolated", RECORD)


def describe_revision(card: Card, classes: tuple[str, ...], config: Config) -> str:
    """Return what a revision of the model would change, "" if nothing.

    Args:
        card: of the model that serves.
        classes: of today's photos. With a new class, or without an old one, a revision is not
            enough.
        config: its sections classes and predict are used.

    Raises:
        ConfigError: as contract_of().
    """
    contract = contract_of(card.classes, classes, config.classes.renamed)
    if contract.added or contract.removed:
        return ""
    then, now = Config().flat() | card.config, config.flat()
    changes = [f"{was} is called {name}" for was, name in contract.renamed]
    changes += [
        f"{setting} is {now[setting]} (was {then[setting]})"
        for setting in _REVISED_SETTINGS
        if now[setting] != then[setting]
    ]
    return ", ".join(changes)


def revise(champion: RegisteredVersion, splits: Splits, config: Config) -> Challenger:
    """Return the champion as a challenger with today's class names; nothing is trained.

    The rows of the head keep their order, so the weights are the champion's bit for bit. The
    threshold for "unsure" follows when the challenger is registered.

    Args:
        splits: of today's photos; their classes are the champion's, apart from the names.
        config: its sections tracking and classes are used.

    Raises:
        ConfigError: as contract_of().
        WeightsNotFound, WeightsMismatch: the champion's bundle is missing or damaged.
    """
    old = load(config.tracking, champion)
    contract = contract_of(old.card.classes, splits.classes, config.classes.renamed)
    names = {was: name for name, was in contract.old_names.items()}
    classifier = old.with_card(
        classes=tuple(names[was] for was in old.card.classes),
        contract=contract,
        config=old.card.config | {RECORD: old.content_hash},
    )
    manifest = load_manifest(config.tracking, champion)
    plan = _untrained(freeze(classifier, FreezeConfig()))
    hashes = frozen_hashes(classifier.build(), plan)
    return Challenger(
        classifier=classifier,
        plan=plan,
        audit=audit(hashes, hashes, plan),
        history=pd.DataFrame(columns=[field.name for field in fields(EpochRecord)]),
        selected_phase="",
        manifest=manifest.assign(label=manifest.label.map(names)),
        stopped=f"nothing was trained, the weights are those of version {champion.version}",
    )


def _untrained(plan: FreezePlan) -> FreezePlan:
    frozen = tuple(replace(parameter, lr_factor=0.0) for parameter in plan.parameters)
    return replace(plan, policy="nothing trained", parameters=frozen)


def revised_model(card: Card) -> str:
    """Return the content hash of the model that this one revises, "" if it is no revision."""
    return card.config.get(RECORD, "")


def card_settings(card: Card, config: Config) -> dict[str, str]:
    """Return the settings for the card of a challenger that is registered under a configuration.

    The settings that its weights were trained under win if it is a revision, and so do records
    that are no settings (of a blend, of a revision).
    """
    flat = config.flat()
    if not revised_model(card):
        return card.config | flat
    trained = {key: text for key, text in card.config.items() if key.startswith(_TRAINED_SECTIONS)}
    return flat | trained
