from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import sshd


@pytest.fixture
def server(tmp_path: Path) -> Iterator[sshd.Sshd]:
    if sshd.MISSING:
        pytest.skip(sshd.MISSING)
    with sshd.running(tmp_path / "sshd") as running:
        yield running
