"""A two-step pipeline with an artifact, for the tests of the stack and the doctor.

A module of its own: ZenML loads steps by their import path, and a test module must not import
zenml when it is collected.
"""

import os
import signal
from typing import Annotated

import pandas as pd
from zenml import pipeline, step


@step
def make_table(n_rows: int) -> Annotated[pd.DataFrame, "table"]:
    return pd.DataFrame({"row": range(n_rows)})


@step(enable_cache=False)
def count(table: pd.DataFrame) -> Annotated[int, "n_rows"]:
    return len(table)


@step(enable_cache=False)
def die(table: pd.DataFrame) -> Annotated[int, "n_rows"]:
    os.kill(os.getpid(), signal.SIGKILL)
    return len(table)


@pipeline
def tiny(n_rows: int = 3):
    count(make_table(n_rows))


@pipeline
def deadly():
    die(make_table(3))
