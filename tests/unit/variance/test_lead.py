"""Margins of integer rows, against sorting them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from orchestrator.variance import top_margin as module
from orchestrator.variance.top_margin import FEW, largest, lead

KINDS = st.sampled_from([np.int8, np.uint8, np.int16, np.int32])


@given(
    KINDS, st.sampled_from([2, 3, FEW, FEW + 1, 70]), st.sampled_from([1, 64, 1 << 17]), st.data()
)
def test_the_largest_and_its_lead(kind: Any, columns: int, block: int, data: Any) -> None:
    near = data.draw(st.booleans())
    elements = st.integers(0, 3) if near else None
    q = data.draw(hnp.arrays(kind, (7, columns), elements=elements))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "BLOCK", block)
        found, at = lead(q), largest(q)
    ordered = np.sort(q.astype(np.int64), axis=1)
    assert found.tolist() == (ordered[:, -1] - ordered[:, -2]).tolist()
    assert at.tolist() == q.argmax(axis=1).tolist()


@pytest.mark.parametrize("columns", [2, FEW + 1])
def test_the_ends_of_the_type(columns: int) -> None:
    q = np.full((2, columns), -128, np.int8)
    q[0, 1] = 127
    assert lead(q).tolist() == [255.0, 0.0]
    assert largest(q).tolist() == [1, 0]
