"""The cells of the confusion matrix."""

from dataclasses import dataclass

from regraft.evaluation.evaluate import EvaluationReport

MAX_CLASSES = 100  # guess: 10 000 cells still scroll well on a phone; above, pairs are clearer
N_WIDE = 12  # guess: up to so many columns, the cells are large


@dataclass(frozen=True)
class Cell:
    """n photos of the row's class with the predicted class; share of the row, in [0, 1]."""

    predicted: str
    n: int
    share: float


@dataclass(frozen=True)
class MatrixRow:
    """A true class, the number of its photos, and a cell a class in order."""

    label: str
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
    return Matrix(tuple(_row(label, classes, counts) for label in classes), len(classes) > N_WIDE)


def _row(label: str, classes: tuple[str, ...], counts: dict[tuple[str, str], int]) -> MatrixRow:
    n = [int(counts.get((label, predicted), 0)) for predicted in classes]
    total = sum(n)
    cells = (Cell(name, m, m / max(total, 1)) for name, m in zip(classes, n, strict=True))
    return MatrixRow(label, total, tuple(cells))
