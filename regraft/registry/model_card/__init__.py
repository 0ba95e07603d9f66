"""The model card: what a registered model is, from what is recorded of it and nothing else."""

from regraft.registry.model_card.facts import ModelCard, card_of
from regraft.registry.model_card.render import html, markdown

__all__ = ["ModelCard", "card_of", "html", "markdown"]
