"""Policies are strict, complete and shipped ready to use; references are chosen in order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from orchestrator.errors import InputError
from orchestrator.matrix.policy import Policy
from orchestrator.matrix.yamlfile import load
from tests.unit.signoff.build import clean, codes, decide, device, failed, of, policy

POLICIES = sorted((Path(__file__).parents[3] / "matrices" / "policies").glob("*.yaml"))


@pytest.mark.parametrize("path", POLICIES, ids=lambda p: p.stem)
def test_shipped_policies_load_and_are_named_like_their_file(path: Path) -> None:
    found = load(path, Policy)
    assert found.name == path.stem
    gates = found.gates
    assert all(g.enabled for g in (gates.G0, gates.G2, gates.G3, gates.G5, gates.G6, gates.G7))
    assert found.gates == Policy(name="defaults").gates


def test_all_three_policies_are_shipped() -> None:
    assert [p.stem for p in POLICIES] == ["default", "quickstart", "virtual-farm"]


def test_defaults_are_those_of_the_guide() -> None:
    gates = Policy(name="x").gates
    assert (gates.G2.min_repeats, gates.G2.min_samples) == (100, 8)
    assert gates.G3.min_ratio == 0.99
    assert gates.G5.max_disagreement == 0.05
    assert (gates.G6.max_disagreement, gates.G6.min_near_tie) == (0.005, None)
    assert (gates.G7.max_lsb, gates.G7.max_share) == (2, 0.01)


@pytest.mark.parametrize(
    "wrong",
    [
        {"colour": "red"},
        {"gates": {"G8": {}}},
        {"gates": {"G6": {"max_disagrement": 0.1}}},
        {"gates": {"G6": {"max_disagreement": 1.0}}},
        {"gates": {"G6": {"max_disagreement": -0.1}}},
        {"gates": {"G6": {"max_disagreement": float("nan")}}},
        {"gates": {"G6": {"enabled": "yes"}}},
        {"gates": {"G2": {"min_repeats": 1}}},
        {"gates": {"G2": {"min_repeats": 99.5}}},
        {"gates": {"G3": {"min_ratio": 0}}},
        {"confidence": 0.5},
        {"confidence": 1.0},
        {"name": ""},
        {"accept_emulated": "true"},
        {"reference": [{"device": "host"}]},
        {"reference": [{"device": "", "runtime": "ort"}]},
        {"reference": {"device": "host", "runtime": "ort"}},
    ],
)
def test_anything_unknown_or_ill_typed_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Policy.model_validate({"name": "x"} | wrong)


def test_a_wrong_policy_file_is_reported_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "p.yaml"
    file.write_text("name: x\ngates:\n  G6: {max_disagreement: 2}\n")
    with pytest.raises(InputError) as caught:
        load(file, Policy)
    assert caught.value.where == f"{file}:3"


def test_a_policy_survives_being_stored() -> None:
    first = policy(reference=[{"device": "a", "runtime": "b", "isa_any": ["avx_vnni"]}])
    again = Policy.model_validate(first.model_dump(mode="json"))
    assert again == first
    assert again.sha256() == first.sha256() != policy().sha256()


def choice(*observations: Any, **over: Any) -> str | None:
    return of(decide(*observations, policy_=policy(**over)), "z").reference


def test_the_first_candidate_that_ran_wins() -> None:
    order = [{"device": d, "runtime": "ort"} for d in ("b", "a")]
    assert choice(device("a"), device("b"), device("z"), reference=order) == "net.int8@b/ort"
    assert choice(device("a"), failed("b"), device("z"), reference=order) == "net.int8@a/ort"
    invalid = clean("b", codes_valid=False)
    assert choice(device("a"), invalid, device("z"), reference=order) == "net.int8@a/ort"


def test_isa_flags_pass_over_hosts_without_them() -> None:
    order = [
        {"device": "host", "runtime": "ort", "isa_any": ["avx512_vnni", "avx_vnni"]},
        {"device": "a", "runtime": "ort"},
    ]
    with_it = device("host", isa=frozenset({"avx2", "avx_vnni"}))
    without = device("host", isa=frozenset({"avx2"}))
    assert choice(with_it, device("a"), device("z"), reference=order) == "net.int8@host/ort"
    assert choice(without, device("a"), device("z"), reference=order) == "net.int8@a/ort"


def test_patterns_fit_names_classes_and_files() -> None:
    unit = device("kitchen", device_class="rpi5")
    by_class = [{"device": "rpi?", "runtime": "o*"}]
    assert choice(unit, device("z"), reference=by_class) == "net.int8@kitchen/ort"
    for files, fits in (("net.*", True), ("int8", True), ("other.*", False)):
        wanted = [{"files": files, "device": "kitchen", "runtime": "ort"}]
        assert (choice(unit, device("z"), reference=wanted) is not None) == fits


def test_each_model_file_has_its_own_reference() -> None:
    order = [{"device": "ref", "runtime": "ort"}, {"device": "ref", "runtime": "litert"}]
    lite: dict[str, Any] = {"file": "tflite", "runtime": "litert"}
    found = decide(
        device("ref"),
        device("ref", **lite),
        device("z", codes(), **lite),
        policy_=policy(reference=order),
    )
    assert of(found, "z").reference == "net.tflite@ref/litert"


def test_of_several_fitting_rows_the_first_id_is_the_reference() -> None:
    wanted = [{"device": "r*", "runtime": "ort"}]
    assert choice(device("r2"), device("r1"), device("z"), reference=wanted) == "net.int8@r1/ort"
