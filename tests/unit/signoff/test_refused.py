"""Who refused a model: the runtime everywhere, or one device of several alike."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.matrix.key import Key
from orchestrator.signoff.refused import first_the_devices
from orchestrator.variance.observation import Observation
from tests.unit.signoff.build import clean, decide, failed, of, repeated

A: dict[str, Any] = {"device_class": "pi"}
B: dict[str, Any] = {"device_class": "pi", "key": Key(version="1.2", build="b")}


def refused(device: str) -> Observation:
    return failed(device, "model_error", **A)


@pytest.mark.parametrize(
    ("others", "status"),
    [
        ([], "model_error"),
        ([clean("two", **A)], "infra_error"),
        ([clean("two", **B)], "infra_error"),
        ([refused("two")], "model_error"),
        ([clean("one", **A)], "model_error"),
        ([clean("two", device_class="orin")], "model_error"),
        ([clean("two", **A, runtime="litert")], "model_error"),
        ([clean("two", **A, file="other")], "model_error"),
        ([clean("two", **A, inputs="other")], "model_error"),
        ([clean("two", **A, emulated=True)], "model_error"),
        # A few samples were run, which may lack the one that the runtime fails on.
        ([repeated("two", **A)], "model_error"),
        # Known to be another runtime: by what else the unit ran.
        (
            [clean("two", **B), clean("one", **A, file="other", key=Key(version="1.1", build="b"))],
            "model_error",
        ),
        (
            [clean("two", **B), clean("one", **A, file="other", key=Key(version="1.2", build="c"))],
            "model_error",
        ),
        ([clean("two", **B), clean("one", file="other", **B)], "infra_error"),
    ],
)
def test_what_one_device_refuses_is_first_the_devices(
    others: list[Observation], status: str
) -> None:
    found = first_the_devices([refused("one"), *others])
    assert found[0].status == status
    assert [o.status for o in found[1:]] == [o.status for o in others]
    assert ("two ran it" in str(found[0].error)) == (status == "infra_error")


def test_it_is_an_error_of_that_row_and_no_fail() -> None:
    found = of(decide([refused("one"), clean("two", **A)]), "one")
    assert found.verdict == "error"
    assert "refused although two ran it: link lost" in found.reasons[0]
    assert of(decide([refused("one"), clean("two", device_class="orin")]), "one").verdict == "fail"
