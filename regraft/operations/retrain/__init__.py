"""Retraining: when to train again, the start of the training and the record of each attempt.

This file imports nothing, so that `regraft retrain` can report "nothing has changed" without torch.
"""
