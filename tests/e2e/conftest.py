from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.tiny import Tiny


@pytest.fixture
def tiny(tmp_path: Path) -> Tiny:
    return Tiny(tmp_path / "matrix")


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Not made yet: that is for the command to do, or not to do."""
    return tmp_path / "store"
