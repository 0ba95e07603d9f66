"""Workflows: what the command line, the Python API and the schedule all call."""
