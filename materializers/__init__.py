"""Only what ZenML's built-in materializers cannot do: tables with more than rows, and weights."""
