"""From files to a table of usable photos, split into train, validation and test."""
