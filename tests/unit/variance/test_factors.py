"""Factors from environments as the worker really records them, here and below a made-up root."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from device_worker.environment import describe
from device_worker.wire import Delegate, RuntimeSpec
from orchestrator.matrix.inventory import Device
from orchestrator.matrix.model import RuntimeConfig
from orchestrator.matrix.runtime import runtime_spec
from orchestrator.variance.factors import CPU, FACTORS, Factors, Way, changed, factors, way
from orchestrator.variance.observation import Row
from tests.unit.variance.raters import PLAIN

ROW = Row("net", "int8", "desk", "host", False, "lite", "digits", "clean")
PI = "processor\t: {n}\nFeatures\t: fp asimd\nCPU implementer\t: 0x41\nCPU part\t: {part}\n\n"


def pi(folder: Path, *parts: str, os: str = "Debian 12") -> Path:
    """The root of a board whose cores have these part numbers."""
    for name, text in {
        "proc/cpuinfo": "".join(PI.format(n=n, part=part) for n, part in enumerate(parts)),
        "etc/os-release": f'PRETTY_NAME="{os}"\n',
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def of(
    root: str | Path = "/", version: dict[str, Any] | None = None, row: Row = ROW, **spec: Any
) -> Factors:
    wanted = RuntimeSpec(**{"runtime": "litert", **spec})
    return factors(row, wanted, describe(wanted, version, str(root)))


def test_this_machine_answers_whole() -> None:
    found = of()
    assert found.core
    assert found.core.split()[-2] == "isa"
    assert found.system
    assert (found.runtime, found.threads, found.kernels) == ("litert", 1, "default")
    assert found.version
    assert found.build
    assert changed(found, of()) == ()


def test_cores_are_told_apart_by_part_and_flags_and_not_by_their_number(tmp_path: Path) -> None:
    four = of(pi(tmp_path / "a", *["0xd08"] * 4))
    two = of(pi(tmp_path / "b", *["0xd08"] * 2))
    other = of(pi(tmp_path / "c", *["0xd03"] * 4))
    assert four.core == two.core
    assert four.core is not None
    assert "0x41/0xd08" in four.core
    assert changed(four, other) == ("core",)


def test_another_system_on_the_same_unit(tmp_path: Path) -> None:
    old = of(pi(tmp_path / "a", "0xd08"))
    assert changed(old, of(pi(tmp_path / "b", "0xd08", os="Debian 13"))) == ("system",)


def test_the_runtimes_environment_is_not_the_system() -> None:
    """tflite-runtime needs another NumPy: that alone must not unmatch it from LiteRT."""
    wanted = RuntimeSpec("litert")
    told = describe(wanted)
    other = {**told, "numpy": "1.26.4", "python": "3.9.2"}
    assert changed(factors(ROW, wanted, told), factors(ROW, wanted, other)) == ()


def test_threads_kernels_and_condition() -> None:
    plain = of()
    assert changed(plain, of(threads=2)) == ("threads",)
    assert changed(plain, of(kernels="reference")) == ("kernels",)
    assert changed(plain, of(row=replace(ROW, condition="soak:75C/60s"))) == ("condition",)
    assert changed(plain, of(row=replace(ROW, condition="repeat:100"))) == ()
    assert changed(plain, of(threads=2, kernels="builtin")) == ("threads", "kernels")
    assert changed(plain, of(reset=False)) == ("reset",)
    assert of(reset=False).text().endswith(" threads 1 reset off")


def test_everything_that_selects_kernels_counts() -> None:
    ort = RuntimeSpec("onnxruntime")
    variants = [
        ort,
        replace(ort, session={"session.x64quantprecision": "1"}),
        replace(ort, providers=["XnnpackExecutionProvider", CPU]),
        replace(ort, providers=["XnnpackExecutionProvider", CPU],
                provider_options={"XnnpackExecutionProvider": {"intra_op_num_threads": "2"}}),
        RuntimeSpec("litert", delegate=Delegate("edgetpu", "libedgetpu.so.1", {}, "ab" * 32)),
        RuntimeSpec("litert", delegate=Delegate("edgetpu", "libedgetpu.so.1", {}, "cd" * 32)),
    ]  # fmt: skip
    named = [factors(ROW, spec, describe(spec)).kernels for spec in variants]
    assert named[:3] == ["default", "session.x64quantprecision=1", "XnnpackExecutionProvider"]
    assert len(set(named)) == len(named)
    fell = factors(ROW, ort, describe(ort), ("asked for NNAPI, it was given no operator",))
    assert fell.kernels == "fallback: asked for NNAPI, it was given no operator"


ANOTHER: dict[str, Any] = {
    "runtime": "tflite-runtime",
    "threads": 2,
    "kernels": "reference",
    "providers": ["XnnpackExecutionProvider", CPU],
    "provider_options": {"XnnpackExecutionProvider": {"intra_op_num_threads": "2"}},
    "session": {"session.x64quantprecision": "1"},
    "delegate": Delegate("npu", "libnpu.so"),
    "optimise": False,
    "reset": False,
}
"""Field of a runtime spec -> a value that is not the usual one."""
CONFIGURED: dict[str, Any] = {
    "runtime": "tflite-runtime",
    "threads": 2,
    "provider": ("XnnpackExecutionProvider", CPU),
    "provider_options": {"CPUExecutionProvider": {"arena": "0"}},
    "session": {"session.x64quantprecision": "1"},
    "delegate": "npu",
    "kernels": "builtin",
    "reset": "off",
}
"""Key of a runtime in a matrix -> a value that is not the usual one."""
CHOOSES = {"name", "devices", "files"}
"""Keys of a runtime that say where it runs, not how."""
NPU = Device.model_validate(
    {
        "name": "desk",
        "class": "host",
        "transport": {"type": "local"},
        "python": {"default": "python3"},
        "delegates": {"npu": {"library": "libnpu.so"}},
    }
)


@pytest.mark.parametrize("field", [f.name for f in fields(RuntimeSpec)])
def test_whatever_a_runtime_spec_holds_is_a_factor(field: str) -> None:
    """A field without a value here is one that somebody added: give it one, and see it counted."""
    plain = RuntimeSpec("litert")
    environment = {**describe(plain), "runtime": {"version": "1", "native_sha256": "b"}}
    a, b = (
        factors(ROW, spec, environment)
        for spec in (plain, replace(plain, **{field: ANOTHER[field]}))
    )
    assert changed(a, b), field
    assert a.way != b.way


@pytest.mark.parametrize("key", sorted(RuntimeConfig.model_fields.keys() - CHOOSES))
def test_whatever_a_runtime_in_a_matrix_names_is_a_factor(key: str) -> None:
    found = []
    for values in ({}, {key: CONFIGURED[key]}):
        config = RuntimeConfig.model_construct(**{"name": "r", "runtime": "litert", **values})
        found.append(way(runtime_spec(config, NPU)))
    assert found[0] != found[1], key


def test_every_field_of_the_factors_parts_answers() -> None:
    """Within unit means equal in all of them; every one is told under a name in FACTORS."""
    values = {f.name: getattr(PLAIN, f.name) for f in fields(Factors)}
    for name, value in values.items():
        another: Any = value + 1 if isinstance(value, int) else f"{value}-other"
        other = replace(PLAIN, **{name: another})
        assert changed(PLAIN, other), name
        assert set(changed(PLAIN, other) or ()) <= set(FACTORS)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ({"session": {"a": "1, b=2"}}, {"session": {"a": "1", "b": "2"}}),
        ({"session": {"a": "b=c"}}, {"session": {"a=b": "c"}}),
        ({"session": {"P k": "v"}}, {"provider_options": {"P": {"k": "v"}}}),
        ({"providers": [CPU, "X"]}, {"providers": ["X", CPU]}),
        ({"providers": ["X", "Y", CPU]}, {"providers": ["Y", "X", CPU]}),
        ({"kernels": "reference"}, {"session": {"reference": ""}}),
    ],
)
def test_two_settings_never_have_the_same_words(a: dict[str, Any], b: dict[str, Any]) -> None:
    one, two = (way(RuntimeSpec("onnxruntime", **spec)) for spec in (a, b))
    assert one.kernels != two.kernels


def test_the_cpu_comes_last_named_or_not() -> None:
    named, plain = (way(RuntimeSpec("onnxruntime", providers=p)) for p in (["X", CPU], ["X"]))
    assert named == plain == Way("onnxruntime", 1, "X", "on")


def test_the_version_in_use_wins_over_what_is_installed() -> None:
    assert of(version={"version": "2.1.0"}).version == "2.1.0"
    assert of(version={"distribution": "other", "version": "1"}).version == "other 1"


def test_nothing_recorded_is_unknown_and_matches_nothing() -> None:
    found = factors(ROW, RuntimeSpec("litert", threads=3), {})
    assert (found.core, found.system, found.version, found.build) == (None, None, None, None)
    assert found.threads == 3
    assert changed(found, found) is None


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, ()),
        ({"system": "other"}, ("system",)),
        ({"unit": "box-2"}, ("unit",)),
        ({"unit": "box-2", "system": "other"}, ("unit",)),
        ({"unit": "pi", "device_class": "pi"}, ("class",)),
        ({"unit": "pi", "device_class": "pi", "core": "arm", "build": "b2"}, ("core",)),
        ({"unit": "box-2", "build": "b2"}, ("unit", "version")),
        ({"build": "b2"}, ("version",)),
        ({"build": None}, ()),
        ({"version": "2.4.0", "build": "b2"}, ("version",)),
        ({"runtime": "tflite-runtime", "version": "2.14.0", "build": "b2"}, ("runtime",)),
        ({"runtime": "tflite-runtime", "version": None}, ("runtime",)),
        ({"version": None}, None),
        ({"core": None}, None),
        ({"system": None}, None),
        ({"unit": "box-2", "system": None}, ("unit",)),
        ({"threads": 2, "unit": "box-2"}, ("unit", "threads")),
    ],
)
def test_an_axis_counts_under_its_outermost_factor(
    changes: dict[str, Any], expected: tuple[str, ...] | None
) -> None:
    other = replace(PLAIN, **changes)
    assert changed(PLAIN, other) == expected
    assert changed(other, PLAIN) == expected
