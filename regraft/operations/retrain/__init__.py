"""Retrain: whether it is time to train again, from where, and how an attempt ends.

Nothing is named here: that nothing has changed is said in seconds, without torch.
"""
