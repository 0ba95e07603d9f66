"""ZenML: the stack, runs, schedules, approvals and the mirror; the only package that imports it.

Nothing here imports zenml when it is imported itself: ZenML reads its environment at import, so
state.activate() has to come first.
"""
