"""The rules that keep a verdict honest, each on its own."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

from orchestrator.errors import Exit
from orchestrator.signoff.judge import judge
from orchestrator.variance.lattice import Output
from tests.unit.signoff.build import (
    clean,
    codes,
    decide,
    device,
    failed,
    gate,
    of,
    outputs,
    policy,
    repeated,
    row,
    truth,
)
from tests.unit.variance.arrays import f32


def verdicts(found: Any) -> dict[str, str]:
    return {r.device: r.verdict for r in found.rows}


def test_complete_and_equal_evidence_passes() -> None:
    found = decide(device("ref"), device())
    assert found.verdict == "pass"
    assert found.exit_code == Exit.PASS
    assert verdicts(found) == {"ref": "pass", "rpi4": "pass"}


def test_emulated_never_covers_unless_the_policy_says_so() -> None:
    evidence = [*device("ref"), *device("qemu-a72", emulated=True)]
    found = decide(evidence)
    assert verdicts(found) == {"ref": "pass", "qemu-a72": "inconclusive"}
    assert "emulated" in of(found, "qemu-a72").reasons[-1]
    assert {g.verdict for g in of(found, "qemu-a72").gates} == {"pass"}  # computed and shown
    assert found.exit_code == Exit.INCONCLUSIVE

    accepted = decide(evidence, policy_=policy(accept_emulated=True))
    assert accepted.verdict == "pass"
    assert accepted.reasons[0] == "includes emulated devices: qemu-a72"


def test_emulated_fails_remain_fails() -> None:
    bad = device("qemu-haswell", codes(flipped=400), emulated=True)
    for accept in (False, True):
        found = decide(device("ref"), bad, policy_=policy(accept_emulated=accept))
        assert of(found, "qemu-haswell").verdict == found.verdict == "fail"


def test_emulated_and_real_units_of_one_name_are_two_classes() -> None:
    found = decide(
        device("ref"),
        device("a", device_class="rpi4"),
        device("b", device_class="rpi4", emulated=True),
    )
    classes = {(c.device_class, c.emulated): c.verdict for c in found.classes}
    assert classes[("rpi4", False)] == "pass"
    assert classes[("rpi4", True)] == "inconclusive"


def test_an_emulated_reference_needs_acceptance() -> None:
    evidence = [*device("ref", emulated=True), *device()]
    found = decide(evidence)
    assert of(found).reference is None
    assert gate(of(found), "G6").verdict == "inconclusive"
    assert of(decide(evidence, policy_=policy(accept_emulated=True))).reference is not None


@pytest.mark.parametrize(
    ("status", "verdict", "code"),
    [
        ("infra_error", "error", Exit.INFRA),
        ("timeout", "timeout", Exit.TIMEOUT),
        ("model_error", "fail", Exit.FAIL),
        ("not_available", "inconclusive", Exit.INCONCLUSIVE),
        ("pending", "inconclusive", Exit.INCONCLUSIVE),
        ("cancelled", "inconclusive", Exit.INCONCLUSIVE),
    ],
)
@pytest.mark.parametrize("where", ["clean", "repeat:100"])
def test_what_each_status_may_mean(status: str, verdict: str, code: Exit, where: str) -> None:
    bad = failed("rpi4", status, condition=where)
    other = repeated() if where == "clean" else clean()
    found = decide(device("ref"), bad, other)
    assert of(found).verdict == found.verdict == verdict
    assert of(found).status == status
    assert found.exit_code == code
    assert found.timed_out == (status == "timeout")
    assert any("link lost" in reason for reason in of(found).reasons)


def test_precedence() -> None:
    evidence = [*device("ref"), failed("b", "not_available")]
    assert decide(evidence).verdict == "inconclusive"
    evidence.append(failed("c", "timeout"))
    assert decide(evidence).verdict == "timeout"
    evidence.append(failed("d", "infra_error"))
    assert decide(evidence).verdict == "error"
    evidence += device("e", codes(flipped=400))
    found = decide(evidence)
    assert found.verdict == "fail"
    assert found.timed_out


def test_underpowered_is_inconclusive() -> None:
    found = decide(device("ref", codes(8)), device("rpi4", codes(8)), truth_=truth(8))
    assert of(found).verdict == "inconclusive"
    assert gate(of(found), "G6").verdict == "inconclusive"
    assert "takes 598 samples" in gate(of(found), "G6").reason


def test_few_samples_may_still_fail() -> None:
    found = decide(device("ref", codes(8)), device("rpi4", codes(8, flipped=8)), truth_=truth(8))
    assert of(found).verdict == "fail"


def test_without_a_reference_g6_and_g7_are_inconclusive() -> None:
    for reference in ([], [{"device": "nowhere", "runtime": "*"}]):
        result = of(decide(device(), policy_=policy(reference=reference)))
        assert gate(result, "G6").verdict == gate(result, "G7").verdict == "inconclusive"
        assert "no reference" in gate(result, "G6").reason
        assert (result.verdict, result.reference) == ("inconclusive", None)


def test_a_reference_that_failed_to_run_is_named() -> None:
    result = of(decide(failed("ref"), device()))
    assert gate(result, "G6").verdict == "inconclusive"
    assert "net.int8@ref/ort" in gate(result, "G6").reason


def test_the_reference_is_gated_against_fp32_only() -> None:
    result = of(decide(device("ref", codes(flipped=400)), device()), "ref")
    assert result.is_reference
    assert gate(result, "G6").verdict == gate(result, "G7").verdict == "not_applicable"
    assert gate(result, "G5").verdict == result.verdict == "fail"


@pytest.mark.parametrize(
    ("known", "why"),
    [
        ({"fp32": None, "fp32_error": "baseline did not load"}, "baseline did not load"),
        ({"fp32": None, "fp32_attempt": None}, "no FP32 parent was run"),
        ({"fp32": outputs(codes(999))}, "labels for 999 samples"),
        ({"fp32": outputs(codes(999)), "labels": None}, "cannot be compared"),
    ],
)
def test_without_a_usable_parent_g3_and_g5_are_inconclusive(
    known: dict[str, Any], why: str
) -> None:
    result = of(decide(device("ref"), device(), truth_=truth(**known)))
    assert gate(result, "G3").verdict == gate(result, "G5").verdict == "inconclusive"
    assert why in gate(result, "G5").reason
    assert result.fp32 is None
    assert gate(result, "G6").verdict == "pass"
    assert result.verdict == "inconclusive"


def test_without_labels_accuracy_is_inconclusive_and_behaviour_is_not() -> None:
    evidence = [*device("ref"), *device()]
    result = of(decide(evidence, truth_=truth(labels=None)))
    assert result.accuracy is None
    assert gate(result, "G3").verdict == "inconclusive"
    assert gate(result, "G5").verdict == "pass"
    unasked = policy(gates={"G3": {"enabled": False}})
    assert of(decide(evidence, policy_=unasked, truth_=truth(labels=None))).verdict == "pass"


def test_labels_that_do_not_fit_make_no_accuracy() -> None:
    result = of(decide(device("ref"), device(), truth_=truth(labels=np.full(1000, 7))))
    assert result.accuracy is None
    assert result.verdict == "inconclusive"
    assert any("0..1" in reason for reason in result.reasons)


def test_gates_that_are_switched_off_are_shown_and_gate_nothing() -> None:
    off = {name: {"enabled": False} for name in ("G0", "G2", "G3", "G5", "G6", "G7")}
    result = of(decide(device("ref"), device(), policy_=policy(gates=off)))
    assert {g.verdict for g in result.gates} == {"not_applicable"}
    assert result.verdict == "inconclusive"
    assert "gates nothing" in result.reasons[-1]


def test_outputs_marked_invalid_are_not_used() -> None:
    result = of(decide(device("ref"), clean(codes_valid=False), repeated()))
    assert (result.verdict, result.accuracy, result.vs_reference) == ("inconclusive", None, None)


def test_a_hot_device_keeps_its_integers() -> None:
    found = decide(device("ref"), device(timing_valid=False))
    assert of(found).verdict == "pass"
    assert not of(found).cells[0].timing_valid


def test_a_row_without_a_clean_cell_is_not_covered() -> None:
    result = of(decide(device("ref"), repeated()))
    assert result.verdict == "inconclusive"
    assert any("clean" in reason for reason in result.reasons)


def test_too_few_samples_are_not_a_complete_result() -> None:
    result = of(decide(device("ref"), device("rpi4", codes(900))))
    assert result.verdict == "inconclusive"
    assert any("1000 labels for 900 samples" in reason for reason in result.reasons)


def test_other_bytes_of_the_model_file_are_never_compared() -> None:
    found = decide(device("ref"), device(file_sha256="cd" * 32))
    assert gate(of(found), "G6").verdict == "inconclusive"
    assert "other bytes" in gate(of(found), "G6").reason
    assert found.pairs == ()
    changed = decide(device("ref"), clean(), repeated(file_sha256="cd" * 32))
    assert of(changed).verdict == "inconclusive"


def test_nan_on_both_sides_is_bit_exact_and_disagrees() -> None:
    broken = (Output("logits", np.full((1000, 2), np.nan, np.float32), 0.5, 0, -128, 127),)
    found = decide(clean("ref", outputs=broken), clean(outputs=broken))
    result = of(found)
    assert result.vs_reference is not None
    assert result.vs_reference.bit_exact.rate == 1.0
    assert result.vs_reference.disagreement.rate == 1.0
    assert gate(result, "G6").verdict == "fail"
    assert result.nonfinite == 1000
    assert "NaN" in result.reasons[-1]


def test_one_nan_sample_is_one_disagreement() -> None:
    values = np.tile(f32([20.0, 0.0]), (1000, 1))
    values[3, 1] = np.nan
    found = decide(clean("ref"), clean(outputs=(Output("logits", values),)))
    result = of(found)
    assert result.vs_reference is not None
    assert result.vs_reference.disagreement.k == 1
    assert result.accuracy is not None
    assert result.accuracy.k == 999
    assert found.fleet[0].spread.unanimity.k == 999


def test_no_pass_rests_on_an_answer_that_is_not_finite() -> None:
    finite = np.tile(f32([20.0, 0.0]), (1000, 1))
    values = finite.copy()
    values[3, 1] = np.inf
    only = policy(gates={f"G{n}": {"enabled": False} for n in (0, 2, 3, 5, 7)})
    for shown, verdict in ((finite, "pass"), (values, "inconclusive")):
        cell = clean(outputs=(Output("logits", shown),))
        result = of(decide(clean("ref"), cell, policy_=only))
        assert gate(result, "G6").verdict == "pass"
        assert result.verdict == verdict


def test_many_pairs_are_corrected_by_holm() -> None:
    """10 of 1000 fails half a percent alone (p = .031), not as one of many; 100 of 1000 always."""
    alone = decide(device("ref"), device("d0", codes(flipped=10)))
    assert gate(of(alone, "d0"), "G6").verdict == "fail"
    crowd = decide(
        device("ref"),
        device("d0", codes(flipped=10)),
        device("d1", codes(flipped=100)),
        *[device(f"e{i}") for i in range(8)],
    )
    found = gate(of(crowd, "d0"), "G6")
    assert found.verdict == "inconclusive"
    assert "Holm" in found.reason
    assert gate(of(crowd, "d1"), "G6").verdict == "fail"


def test_passing_needs_no_correction() -> None:
    many = decide(device("ref"), *[device(f"e{i}") for i in range(30)])
    assert many.verdict == "pass"


def test_nothing_observed_is_inconclusive() -> None:
    found = judge(policy(), [], {})
    assert (found.verdict, found.exit_code) == ("inconclusive", Exit.INCONCLUSIVE)


def test_order_changes_nothing() -> None:
    evidence = [
        *device("ref"),
        *device("a", codes(flipped=30)),
        *device("b", codes(by=1)),
        failed("c"),
        *device("q", emulated=True),
    ]
    first = decide(evidence).to_json()
    for seed in range(5):
        shuffled = evidence.copy()
        random.Random(seed).shuffle(shuffled)
        assert decide(shuffled).to_json() == first


def test_contradicting_observations_are_the_callers_mistake() -> None:
    with pytest.raises(ValueError, match="same condition"):
        decide(clean(), clean())
    with pytest.raises(ValueError, match="unknown status"):
        decide(clean(status="fine"))
    with pytest.raises(KeyError):
        judge(policy(), [clean(inputs="unheard-of")], {})


def test_a_row_is_named_with_its_inputs_only_where_needed() -> None:
    both = [clean(), clean(inputs="field")]
    known = {("net", "test"): truth(), ("net", "field"): truth()}
    ids = [r.id for r in judge(policy(), both, known).rows]
    assert ids == ["net.int8@rpi4/ort[field]", "net.int8@rpi4/ort[test]"]
    assert decide(clean()).rows[0].id == "net.int8@rpi4/ort"
    assert row().condition == "clean"
