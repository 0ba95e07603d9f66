"""The DAGs, each a table of contents: one stage a line, no logic."""
