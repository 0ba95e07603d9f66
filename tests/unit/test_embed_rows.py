"""Rows: values per photo, in the order of the photos, on disk or in memory."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from regraft.model.embed import Rows

NUMBERS = torch.arange(24, dtype=torch.float32).reshape(8, 3)
ORDER = np.array([5, 0, 7, 3, 3, 6])


@pytest.fixture(params=["in memory", "mapped", "mixed"])
def rows(request, tmp_path):
    """The rows 5, 0, 7, 3, 3, 6 of NUMBERS, from two parts: rows 0 to 4 and 5 to 7."""
    parts = [NUMBERS[:5], NUMBERS[5:]]
    for at in {"in memory": (), "mapped": (0, 1), "mixed": (1,)}[request.param]:
        save_file({"rows": parts[at].contiguous()}, tmp_path / f"{at}.safetensors")
        parts[at] = load_file(tmp_path / f"{at}.safetensors")["rows"]
    return Rows(tuple(parts), (ORDER >= 5).astype(np.int64), np.where(ORDER >= 5, ORDER - 5, ORDER))


def test_rows_come_in_the_order_of_the_photos(rows):
    assert len(rows) == 6
    assert torch.equal(rows.all(), NUMBERS[ORDER])


@pytest.mark.parametrize("positions", [[], [0], [4, 1, 1], [5, 4, 3, 2, 1, 0]])
def test_any_rows_can_be_taken_in_any_order(rows, positions):
    assert torch.equal(
        rows.take(positions), NUMBERS[ORDER[positions]] if positions else NUMBERS[:0]
    )
    assert torch.equal(rows.take(np.array(positions, np.int64)), rows.take(positions))


def test_chunks_of_rows_that_lie_in_order_copy_nothing():
    rows = Rows.of(NUMBERS)
    chunks = list(rows.chunks(3))
    assert torch.equal(torch.cat(chunks), NUMBERS)
    assert chunks[1].data_ptr() == NUMBERS[3:].data_ptr()
    assert rows.n_bytes == NUMBERS.nbytes


@pytest.mark.parametrize("size", [1, 4, 6, 100])
def test_chunks_are_all_rows_and_none_is_larger_than_asked(rows, size):
    chunks = list(rows.chunks(size))
    assert max(len(chunk) for chunk in chunks) <= size
    assert torch.equal(torch.cat(chunks), rows.all())


def test_taken_rows_are_copies(rows):
    rows.all().zero_()
    assert torch.equal(rows.all(), NUMBERS[ORDER])


def test_numbers_in_memory_are_rows():
    assert torch.equal(Rows.of(NUMBERS).all(), NUMBERS)
    assert torch.equal(Rows.of(NUMBERS).take([7, 0]), NUMBERS[[7, 0]])


def test_there_may_be_no_rows():
    nothing = Rows((), np.zeros(0, np.int64), np.zeros(0, np.int64))
    assert (len(nothing), list(nothing.chunks(3))) == (0, [])
    assert nothing.all().shape == nothing.take([]).shape == (0, 0)
    one = Rows((NUMBERS[:0],), np.zeros(0, np.int64), np.zeros(0, np.int64))
    assert one.take([]).shape == (0, 3)
