"""Predictions, metrics, comparisons of backbones and the pages that show them."""
