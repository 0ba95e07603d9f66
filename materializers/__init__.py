"""Materializers for values that ZenML's built-in materializers cannot store."""
