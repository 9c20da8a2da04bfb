"""Names, places and sizes of result files are known before a byte is asked for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from device_worker import wire
from orchestrator.errors import InfraError
from orchestrator.results.files import FILES_LIMIT, TELEMETRY_LIMIT, wanted
from tests.unit.results import made

HONEST = made.result(made.files())
OUTPUT = HONEST.outputs[0]


def test_the_files_of_an_honest_result() -> None:
    assert [(w.local, w.remote) for w in wanted(HONEST, made.SAMPLES)] == [
        ("output-0", "output_0.npy"),
        ("output-1", "output_1.npy"),
        ("latency_ns", "latency_ns.npy"),
        ("sample_hashes", "sample_hashes.npy"),
        ("telemetry", "telemetry.npy"),
    ]


def refused(result: wire.JobResult) -> str:
    with pytest.raises(InfraError) as refusal:
        wanted(result, made.SAMPLES)
    assert refusal.value.retryable
    assert len(str(refusal.value)) < 400
    return refusal.value.id


@pytest.mark.parametrize(
    "role",
    [
        "../x",
        "/etc/passwd",
        "..",
        ".",
        "",
        "a/b",
        "output-0",
        "latency_ns/..",
        "x\0",
        "telemetry\n",
    ],
)
def test_a_role_is_never_a_name_of_the_devices_choice(role: str) -> None:
    more = {**HONEST.files, role: HONEST.files["telemetry"]}
    assert refused(replace(HONEST, files=more)) == "E-RESULT-FILES"
    instead = {**more}
    del instead["telemetry"]
    assert refused(replace(HONEST, files=instead)) == "E-RESULT-FILES"


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",
        "",
        "/",
        "..",
        "latency_ns.npy",
        f"/root/out/{made.ATTEMPT}",
        f"/root/out/{made.ATTEMPT}/../b/x.npy",
        f"/root/out/{made.ATTEMPT}/..",
        f"/root/../out/{made.ATTEMPT}/x.npy",
        f"/root/out/{made.ATTEMPT}/deeper/x.npy",
        f"/root/out/{made.ATTEMPT}/.hidden",
        f"/root/out/{made.ATTEMPT}/x\n.npy",
        f"/root/out/{made.ATTEMPT}/x y.npy",
        f"/root/out/{'b' * 32}/x.npy",
        f"/root/cache/{made.ATTEMPT}/x.npy",
        f"/root/out/{made.ATTEMPT}/" + "n" * 300,
    ],
)
def test_a_place_outside_the_attempts_own_folder(path: str) -> None:
    output = replace(OUTPUT, path=path)
    assert refused(replace(HONEST, outputs=[output, HONEST.outputs[1]])) == "E-RESULT-FILES"
    file = replace(HONEST.files["latency_ns"], path=path)
    files = {**HONEST.files, "latency_ns": file}
    assert refused(replace(HONEST, files=files)) == "E-RESULT-FILES"


def test_two_roles_with_one_file() -> None:
    output = replace(HONEST.outputs[1], path=OUTPUT.path)
    assert refused(replace(HONEST, outputs=[OUTPUT, output])) == "E-RESULT-FILES"


def sized(size: int, role: str) -> wire.JobResult:
    file = HONEST.files[role]
    changed = replace(file, blob=replace(file.blob, size=size))
    return replace(HONEST, files={**HONEST.files, role: changed})


@pytest.mark.parametrize("size", [-1, 0, 24, 20_000, 8 << 40])
@pytest.mark.parametrize("role", ["latency_ns", "sample_hashes"])
def test_a_size_that_does_not_fit(role: str, size: int) -> None:
    assert refused(sized(size, role)) == "E-RESULT-SIZE"


def test_telemetry_is_bounded() -> None:
    assert wanted(sized(0, "telemetry"), made.SAMPLES)
    assert refused(sized(TELEMETRY_LIMIT + 1, "telemetry")) == "E-RESULT-SIZE"


@pytest.mark.parametrize(
    ("changes", "id"),
    [
        ({"shape": [2, 2]}, "E-RESULT-SHAPE"),
        ({"shape": [0]}, "E-RESULT-SHAPE"),
        ({"shape": []}, "E-RESULT-SHAPE"),
        ({"shape": [3, -1]}, "E-RESULT-SHAPE"),
        ({"shape": [3, *[1] * 40]}, "E-RESULT-SHAPE"),
        ({"shape": [3, 1_000_000_000_000]}, "E-RESULT-SIZE"),
        ({"shape": [3, 40_000]}, "E-RESULT-SIZE"),
        ({"dtype": "object"}, "E-RESULT-SHAPE"),
        ({"dtype": "|O"}, "E-RESULT-SHAPE"),
        ({"dtype": "float64", "shape": [3, 2000]}, "E-RESULT-SIZE"),
        ({"dtype": "<U9999999"}, "E-RESULT-SHAPE"),
        ({"blob": replace(OUTPUT.blob, sha256="0")}, "E-RESULT-FORM"),
        ({"blob": replace(OUTPUT.blob, sha256="../../x")}, "E-RESULT-FORM"),
        ({"blob": replace(OUTPUT.blob, sha256=OUTPUT.blob.sha256.upper() + "F")}, "E-RESULT-FORM"),
    ],
)
def test_what_is_said_of_an_output_must_be_possible(changes: dict[str, Any], id: str) -> None:
    output = replace(OUTPUT, **changes)
    assert refused(replace(HONEST, outputs=[output, HONEST.outputs[1]])) == id


def test_all_files_together_are_bounded() -> None:
    """Each fits what it claims to hold; nobody has to take them all."""
    size = FILES_LIMIT - 1000
    large = replace(
        OUTPUT, dtype="int8", shape=[3, size // 3], blob=replace(OUTPUT.blob, size=size)
    )
    other = replace(large, path=HONEST.outputs[1].path)
    assert refused(replace(HONEST, outputs=[large, other])) == "E-RESULT-SIZE"
    assert refused(replace(HONEST, outputs=[])) == "E-RESULT-SHAPE"
    assert refused(replace(HONEST, outputs=[OUTPUT] * 2000)) == "E-RESULT-SHAPE"
