"""Regraft grafts your classes onto a pretrained network, and keeps the graft alive.

The rooms, in the order a photograph walks through them; a room imports only rooms before it:
errors, config, state, ingest, split, backbone, pixels, classifier, freeze, embed, tune, evaluate,
report, tracking, registry, promote, predict.
"""

__version__ = "0.1.0"
