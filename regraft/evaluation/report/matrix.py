"""The cells of the confusion matrix."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from regraft.evaluation.evaluate import EvaluationReport

MAX_CLASSES = 100  # guess: 10 000 cells still scroll well on a phone; above, pairs are clearer
N_WIDE = 12  # guess: up to so many columns, the cells are large
MAX_NAME = 24  # characters of a class beside the matrix; guess


@dataclass(frozen=True)
class Cell:
    """n photos of the row's class with the predicted class; share of the row, in [0, 1]."""

    predicted: str
    n: int
    share: float


@dataclass(frozen=True)
class MatrixRow:
    """A true class, its short name, the number of its photos, and a cell a class in order."""

    label: str
    short: str
    n: int
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Matrix:
    """A row a class; empty if there are more than MAX_CLASSES classes. dense: small cells."""

    rows: tuple[MatrixRow, ...]
    dense: bool


def matrix(report: EvaluationReport) -> Matrix:
    """Return the matrix in the order of the classes."""
    classes = report.classes
    if len(classes) > MAX_CLASSES:
        return Matrix((), dense=True)
    table = report.confusion
    counts = dict(zip(zip(table.label, table.predicted, strict=True), table.n, strict=True))
    rows = tuple(
        _row(label, short, classes, counts)
        for label, short in zip(classes, short_names(classes), strict=True)
    )
    return Matrix(rows, len(classes) > N_WIDE)


def short_names(names: Sequence[str]) -> tuple[str, ...]:
    """Return the names, long ones without a part; different names stay different.

    >>> short_names(("bee", "Bombus terrestris, adult worker", "Bombus terrestris, adult queen"))
    ('bee', 'Bombus terre…dult worker', 'Bombus terre…adult queen')
    >>> short_names(("Bombus terrestris, queen, in winter", "Bombus terrestris, worker, in winter"))
    ('…queen…', '…worker…')
    """
    half = MAX_NAME // 2
    short = [
        name if len(name) <= MAX_NAME else f"{name[:half]}…{name[-(half - 1) :]}" for name in names
    ]
    n_same = Counter(short)
    same = [position for position, name in enumerate(short) if n_same[name] > 1]
    if same:
        parts = _different_parts([names[position] for position in same])
        for position, part in zip(same, parts, strict=True):
            short[position] = part
    return tuple(short)


def _different_parts(names: list[str]) -> list[str]:
    """Return the names without the start and the end that all of them have."""
    n_start = _shared_length(names)
    n_end = _shared_length([name[n_start:][::-1] for name in names])
    return [f"…{name[n_start : len(name) - n_end]}…" for name in names]


def _shared_length(names: list[str]) -> int:
    """Return how many characters all names start with."""
    columns = enumerate(zip(*names, strict=False))
    differing = (at for at, characters in columns if len(set(characters)) > 1)
    return next(differing, min(map(len, names)))


def _row(
    label: str, short: str, classes: tuple[str, ...], counts: dict[tuple[str, str], int]
) -> MatrixRow:
    n = [int(counts.get((label, predicted), 0)) for predicted in classes]
    total = sum(n)
    cells = (Cell(name, m, m / max(total, 1)) for name, m in zip(classes, n, strict=True))
    return MatrixRow(label, short, total, tuple(cells))
