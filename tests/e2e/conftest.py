from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import farm
from tests.support.judged import Judged
from tests.support.tiny import Tiny


@pytest.fixture
def tiny(tmp_path: Path) -> Tiny:
    return Tiny(tmp_path / "matrix")


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Not made yet: that is for the command to do, or not to do."""
    return tmp_path / "store"


@pytest.fixture(scope="session")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Judged:
    """The run over every kind of unit; for tests marked farm."""
    return farm.everything(tmp_path_factory.mktemp("everything"))
