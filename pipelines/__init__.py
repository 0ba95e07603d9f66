"""The pipelines, each a table of contents, and the stack they run on."""
