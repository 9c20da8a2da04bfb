"""A Ray that does not come up: what is tried again, what is said of it, what is left behind."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from orchestrator.errors import InfraError
from orchestrator.fanout import ray_start
from tests.support.cli import assay
from tests.support.line import newest
from tests.support.tiny import Tiny

SLOW = "The current node timed out during startup. This could happen because some of the raylet"


def starting(patch: pytest.MonkeyPatch, *outcomes: Exception | None) -> list[Exception | None]:
    """Ray's starts end with one outcome after the other; which are left."""
    left = list(outcomes)

    def init(join: bool) -> None:
        outcome = left.pop(0)
        if outcome is not None:
            raise outcome

    patch.setattr(ray_start, "_init", init)
    return left


@pytest.mark.parametrize("error", [Exception(SLOW), TimeoutError(), RuntimeError("GCS: Timeout")])
def test_ray_that_was_only_slow_is_started_again_once(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    left = starting(monkeypatch, error, None)
    ray_start.start(join=False)
    assert not left
    left = starting(monkeypatch, error, error, None)
    with pytest.raises(InfraError, match="twice, at a load of") as caught:
        ray_start.start(join=False)
    assert (caught.value.id, caught.value.retryable, len(left)) == ("E-RAY-SLOW", True, 1)
    assert "--executor inprocess" in str(caught.value)


@pytest.mark.parametrize(
    ("error", "join", "id"),
    [
        (Exception("something new"), False, "E-RAY-START"),
        (AssertionError(), False, "E-RAY-START"),
        (KeyError("node"), False, "E-RAY-START"),
        (OSError(28, "No space left on device"), False, "E-RAY-START"),
        (struct.error("unpack requires 4 bytes"), False, "E-RAY-START"),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"), True, "E-RAY-START"),
        (TimeoutError("GCS"), True, "E-RAY-START"),
        (RuntimeError("Version mismatch: this is 3.9"), True, "E-RAY-VERSION"),
    ],
)
def test_ray_that_does_not_start_is_named_whatever_is_raised(
    monkeypatch: pytest.MonkeyPatch, error: Exception, join: bool, id: str
) -> None:
    left = starting(monkeypatch, error, None)
    with pytest.raises(InfraError) as caught:
        ray_start.start(join=join)
    assert (caught.value.id, len(left)) == (id, 1)
    assert (str(error) or type(error).__name__) in caught.value.what


def test_why_ray_did_not_start_is_looked_up_in_its_logs(tmp_path: Path) -> None:
    assert ray_start.told(None) == ray_start.told(tmp_path) == ""
    (tmp_path / "raylet.out").write_text("I all is well\nRaylet was Killed by somebody\n")
    (tmp_path / "gcs_server.err").write_bytes(b"\xff\nCheck failed: Address already in use\nbye\n")
    assert ray_start.told(tmp_path) == "gcs_server.err: Check failed: Address already in use"
    (tmp_path / "gcs_server.err").unlink()
    assert ray_start.told(tmp_path) == "raylet.out: Raylet was Killed by somebody"


def test_a_run_whose_ray_is_too_slow_ends_with_one_line(tmp_path: Path) -> None:
    env = {"ASSAY_EXECUTOR": "ray", "RAY_gcs_server_port_wait_time_s": "0"}
    slow = assay("run", Tiny(tmp_path / "matrix").write(), store=tmp_path / "store", env=env)
    slow.refused(3, "E-RAY-SLOW", "twice", "--executor inprocess")
    assert newest(tmp_path / "store") is None
