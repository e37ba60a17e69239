"""Pixel by pixel, a few rows at a time, on all cores."""

import numpy as np
import pytest

from nightisp.rows import ROWS, in_rows


@pytest.mark.parametrize("height", [0, 1, ROWS, ROWS + 1, 5 * ROWS + 3])
def test_each_row_is_done_once(height: int) -> None:
    rows = np.arange(height, dtype=np.float32)[:, None] + np.zeros((1, 3), np.float32)
    assert np.array_equal(in_rows(lambda part, more: part + more, rows, rows), rows + rows)


def test_the_result_has_the_type_asked_for() -> None:
    assert in_rows(np.rint, np.full((ROWS * 2, 2), 1.7), dtype=np.uint16).dtype == np.uint16


def test_a_fault_in_one_part_is_raised() -> None:
    def fail(part: np.ndarray) -> np.ndarray:
        if part[0, 0] == ROWS:
            raise ValueError("the second part")
        return part

    with pytest.raises(ValueError, match="the second part"):
        in_rows(fail, np.arange(4 * ROWS, dtype=np.float32)[:, None])
