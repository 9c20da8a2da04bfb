"""Each mechanism from evidence as real pairs give it; and what no rule may claim."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from orchestrator.diagnosis.evidence import Evidence, Guilty, Mechanism, Side, adds_pairs_in_int16
from orchestrator.diagnosis.permuted import swapped_columns
from orchestrator.diagnosis.rules import attribute
from orchestrator.diagnosis.signature import Signature, signature
from orchestrator.variance.answers import Answers, read
from orchestrator.variance.lattice import Output
from orchestrator.variance.repeatability import Reordered
from orchestrator.variance.tasks import Classification

N, CLASSES = 200, 10
FACTORS = {
    "core": "cortex-a72",
    "unit": "a72-1",
    "runtime": "litert",
    "version": "2.3.0",
    "kernels": "default",
    "threads": "1",
    "reset": "on",
    "condition": "clean",
}


def codes(seed: int = 0) -> NDArray[np.int8]:
    return np.random.default_rng(seed).integers(-100, 100, (N, CLASSES)).astype(np.int8)


def answers(values: NDArray[np.generic], labels: NDArray[np.int64] | None = None) -> Answers:
    integer = values.dtype.kind in "iu"
    output = Output("y", values, 0.1 if integer else None, 0 if integer else None, -128, 127)
    return read(Classification(), [output], labels)


def steps(values: NDArray[np.int8], count: int, size: int = 1) -> NDArray[np.int8]:
    """The same codes, ``count`` of them ``size`` steps higher."""
    found = values.copy()
    found.reshape(-1)[np.arange(count) * 7] += size
    return found


def side(row: str = "a", **changes: object) -> Side:
    factors = FACTORS | {"unit": row} | dict(_texts(changes.pop("factors", {})))
    return replace(Side(row, factors, ("x" * 64,)), **changes)  # type: ignore[arg-type]


def _texts(value: object) -> Mapping[str, str]:
    assert isinstance(value, dict)
    return value


def evidence(a: Side, b: Side, found: Signature, **more: object) -> Evidence:
    """With the outermost factor of each axis that differs, as `variance.factors` names them."""
    apart = [k for k in FACTORS if a.factors[k] != b.factors[k]]
    names = [k for k in apart if k != "unit" or "core" not in apart]
    names = [k for k in names if k != "version" or "runtime" not in apart]
    return replace(Evidence(a, b, found, tuple(names)), **more)  # type: ignore[arg-type]


def pair(
    a: NDArray[np.generic], b: NDArray[np.generic], labels: NDArray[np.int64] | None = None
) -> Signature:
    return signature(answers(a, labels), answers(b, labels))


ROUNDED = pair(codes(), steps(codes(), 40))


def test_equal_bytes_are_identical_whatever_the_probes_say() -> None:
    told = attribute(
        evidence(
            side(arithmetic={"conv": "half-up"}),
            side("b", arithmetic={"conv": "half-even"}),
            pair(codes(), codes()),
        )
    )
    assert (told.mechanism, told.confidence) == (Mechanism.IDENTICAL, "certain")
    assert "conv: half-up / half-even" in told.because[1]


def test_an_identical_pair_says_why_the_probes_that_differ_do_not_show() -> None:
    a = side(arithmetic=dict.fromkeys(("conv", "dw", "dw tail", "softmax"), "double"))
    b = side("b", arithmetic=dict.fromkeys(a.arithmetic, "double-up"))
    why = {"conv": "all are clamped", "dw": "none is there", "dw tail": "none is there"}
    told = attribute(evidence(a, b, pair(codes(), codes()), unreached=why))
    assert told.because[2:] == (
        "conv: all are clamped",
        "dw, dw tail: none is there",
        "softmax: none of the 2000 elements put out shows it",
    )


@pytest.mark.parametrize(
    ("seen", "mechanism"),
    [
        ({"repeated": 400, "mismatches": 3}, Mechanism.FAULT),
        ({"repeated": 400, "mismatches": 3, "accelerated": True}, Mechanism.NONDETERMINISM),
        ({"order": Reordered(5, 200, 1, 1)}, Mechanism.STATE),
        ({"order": Reordered(5, 200, 0, 1)}, Mechanism.ORDER),
    ],
)
def test_a_side_that_differs_from_itself_is_said_so_where_one_pass_agrees(
    seen: dict[str, object], mechanism: Mechanism
) -> None:
    told = attribute(evidence(side(), side("b", **seen), pair(codes(), codes())))
    assert (told.mechanism, told.blamed) == (mechanism, "b")


def test_other_input_bytes_are_decoding() -> None:
    told = attribute(evidence(side(), side("b", inputs=("y" * 64,)), ROUNDED))
    assert told.mechanism is Mechanism.DECODE


@pytest.mark.parametrize(
    ("changes", "mechanism"),
    [
        ({"accelerated": True}, Mechanism.NONDETERMINISM),
        ({"factors": {"threads": "4"}}, Mechanism.NONDETERMINISM),
        ({}, Mechanism.FAULT),
    ],
)
def test_one_that_does_not_repeat_itself(changes: dict[str, object], mechanism: Mechanism) -> None:
    told = attribute(evidence(side(), side("b", repeated=900, mismatches=3, **changes), ROUNDED))
    assert (told.mechanism, told.blamed) == (mechanism, "b")
    assert "3 of 900" in told.because[0]


@pytest.mark.parametrize(
    ("other", "mechanism", "confidence"),
    [
        (side("a", repeated=900), Mechanism.FAULT, "certain"),
        (side("a"), Mechanism.FAULT, "likely"),
        (side("a", repeated=900, mismatches=1), Mechanism.NONDETERMINISM, "likely"),
        (side("b"), Mechanism.NONDETERMINISM, "likely"),
        (side("b", factors={"kernels": "reference"}), Mechanism.NONDETERMINISM, "likely"),
    ],
)
def test_no_unit_is_at_fault_without_another_that_is_sound(
    other: Side, mechanism: Mechanism, confidence: str
) -> None:
    """A model may draw random numbers: that shows as long as a second unit was asked."""
    told = attribute(evidence(other, side("b", repeated=900, mismatches=3), ROUNDED))
    assert (told.mechanism, told.confidence) == (mechanism, confidence)
    assert ("take the unit out" in (told.fix or "")) == (mechanism is Mechanism.FAULT)


@pytest.mark.parametrize("seen", [{}, {"repeated": 8}, {"arithmetic": {"conv": "half-up"}}])
def test_one_unit_asked_twice_alike_is_accused_of_nothing(seen: dict[str, Any]) -> None:
    told = attribute(evidence(side(**seen), side(**seen), pair(codes(), steps(codes(), 9, 25))))
    assert (told.mechanism, told.factors) == (Mechanism.NONDETERMINISM, ())
    assert (told.confidence, told.blamed) == ("possible", None)


@pytest.mark.parametrize(
    ("changes", "factors", "confidence"),
    [
        ({}, ("reset",), "likely"),
        ({"unit": "b"}, ("unit", "reset"), "possible"),
        ({"threads": "4"}, ("threads", "reset"), "possible"),
        ({"runtime": "tflite-runtime", "version": "2.14"}, ("runtime", "reset"), "possible"),
    ],
)
def test_state_that_was_to_be_kept_is_the_settings_doing(
    changes: dict[str, str], factors: tuple[str, ...], confidence: str
) -> None:
    labels = codes().argmax(axis=1)
    kept = side("a", factors={"reset": "off", **changes})
    told = attribute(evidence(side("a"), kept, pair(codes(), codes(9), labels)))
    assert (told.mechanism, told.confidence) == (Mechanism.STATE, confidence)
    assert set(told.factors or ()) == set(factors)
    assert told.blamed is None
    assert "a does not reset the model's state" in told.because[0]
    alike = side("b", factors={"reset": "off"})
    both = attribute(evidence(side("a", factors={"reset": "off"}), alike, ROUNDED))
    assert both.factors == ("unit",)


def test_an_answer_that_hangs_on_the_order_is_named_as_the_row_names_it() -> None:
    """A sample that was run twice and gave the same bytes shows no state that is carried."""
    none, moved = Reordered(0, 200, 0, 1), Reordered(7, 200, 0, 1)
    for seen in (moved, replace(moved, again_k=1), Reordered(0, 200, 1, 1)):
        told = attribute(evidence(side(order=seen), side("b", order=none), ROUNDED))
        assert (told.mechanism.value, told.blamed) == (seen.finding, "a")
        assert told.confidence == ("certain" if seen.again_k else "likely")
        counted = f"{seen.k} of 200" if seen.k else "1 of 1"
        assert told.because[0].startswith(f"a answers {counted} samples differently when")
    both = attribute(
        evidence(side(order=moved), side("b", order=replace(moved, again_k=1)), ROUNDED)
    )
    assert (both.mechanism, both.blamed) == (Mechanism.STATE, "b"), "carried state is the cause"
    assert "b answers 1 of 1 samples differently when run again after the others" in both.because
    assert attribute(evidence(side(order=none), side("b"), ROUNDED)).blamed is None


def test_samples_in_another_order() -> None:
    told = attribute(evidence(side(), side("b"), pair(codes(), codes()[::-1].copy())))
    assert told.mechanism is Mechanism.ORDER


def test_swapped_labels_are_found_through_rounding() -> None:
    swapped = codes()[:, [0, 2, 1, *range(3, CLASSES)]].copy()
    told = attribute(evidence(side(), side("b"), pair(codes(), steps(swapped, 30))))
    assert told.mechanism is Mechanism.LAYOUT
    assert "2 output columns are swapped: 1←2, 2←1" in told.because[0]


def test_heat_changes_no_integer() -> None:
    hot = side("a", factors={"condition": "soak:75C"})
    told = attribute(evidence(side("a"), hot, ROUNDED))
    assert (told.mechanism, told.factors) == (Mechanism.FAULT, ("condition",))
    assert told.blamed is None
    assert (told.fix or "").startswith("run the same on another unit")
    shuffled = side("a", factors={"condition": "order:7"})
    assert attribute(evidence(side("a"), shuffled, ROUNDED)).mechanism is Mechanism.ORDER


def test_a_fallback_is_where_it_ran() -> None:
    lost = side("b", fallbacks=("asked for XNNPACK, it was given no operator",))
    told = attribute(evidence(side(), lost, ROUNDED))
    assert (told.mechanism, told.blamed) == (Mechanism.FLOAT, "b")


def test_two_units_that_are_alike_in_everything() -> None:
    told = attribute(evidence(side(), side("b"), pair(codes(), steps(codes(), 3, 25))))
    assert (told.mechanism, told.factors) == (Mechanism.FAULT, ("unit",))


def test_another_c_library_is_no_defect_of_the_unit() -> None:
    """A softmax may call its exp; what differs beside the unit is not the unit's fault."""
    told = attribute(evidence(side(), side("b", factors={"system": "other"}), ROUNDED))
    assert told.mechanism is Mechanism.ROUNDING


def test_another_graph_is_the_plan_even_where_it_may_saturate_too() -> None:
    x86 = side(
        "x86", factors={"core": "x86"}, operators={"Conv": 6, "QLinearConv": 3}, pair_sums=True
    )
    nhwc = {"com.microsoft.QLinearConv": 9, "Transpose": 2}
    arm = side("arm", operators=nhwc, pair_sums=False)
    told = attribute(evidence(x86, arm, ROUNDED, saturable=9))
    assert told.mechanism is Mechanism.PLAN
    assert "Conv 6/0, QLinearConv 3/9" in told.because[0]
    assert "saturate" in told.because[1]
    only_laid_out = side("b", factors={"core": "x86"}, operators={"QLinearConv": 9})
    assert attribute(evidence(arm, only_laid_out, ROUNDED)).mechanism is not Mechanism.PLAN


def test_a_plan_that_was_tried_and_changes_nothing_is_no_cause() -> None:
    """The graphs differ by one pooling; what differs on equal inputs is the Softmax."""
    x86 = side("x86", factors={"core": "x86"}, operators={"GlobalAveragePool": 1, "QGemm": 1})
    arm = side("arm", operators={"QLinearGlobalAveragePool": 1, "QGemm": 1})
    found = evidence(x86, arm, ROUNDED, guilty=(Guilty("Softmax", 1, 1),))
    untried = attribute(found)
    assert (untried.mechanism, untried.confidence) == (Mechanism.PLAN, "likely")
    told = attribute(replace(found, plan_matters=False))
    assert (told.mechanism, told.confidence) == (Mechanism.ROUNDING, "likely")
    assert "differ on equal inputs: 1 Softmax, max 1 LSB" in told.because
    shown = attribute(replace(found, plan_matters=True))
    assert (shown.mechanism, shown.confidence) == (Mechanism.PLAN, "certain")
    assert "arm answers differently under the plan of x86 than under its own" in shown.because
    # Also where counts of operators, all that is kept of a run, do not tell the plans apart.
    same = replace(found, a=replace(x86, operators={}), plan_matters=True)
    assert attribute(same).mechanism is Mechanism.PLAN


def test_saturation_needs_the_instruction_and_weights_that_can() -> None:
    here, arm = (
        side("haswell", factors={"core": "haswell"}, pair_sums=True),
        side("arm", pair_sums=False),
    )
    big = pair(codes(), steps(codes(), 150, 20))
    told = attribute(evidence(arm, here, big, saturable=4))
    assert (told.mechanism, told.blamed, told.confidence) == (
        Mechanism.SATURATION,
        "haswell",
        "likely",
    )
    assert told.fix is not None
    assert "reduce_range" in told.fix
    assert attribute(evidence(arm, here, big)).mechanism is not Mechanism.SATURATION
    both = attribute(evidence(replace(arm, pair_sums=True), here, big, saturable=4))
    assert both.mechanism is not Mechanism.SATURATION
    probed = replace(here, arithmetic={"u8s8 matmul": "saturating"})
    exact = replace(arm, arithmetic={"u8s8 matmul": "half-even"})
    assert attribute(evidence(exact, probed, big, saturable=4)).confidence == "certain"


def test_one_that_computes_wrong() -> None:
    labels = codes().argmax(axis=1)
    garbage = codes(9)
    other = side("bad", factors={"core": "max"})
    told = attribute(evidence(side(), other, pair(codes(), garbage, labels)))
    assert (told.mechanism, told.blamed) == (Mechanism.FAULT, "bad")
    nan = np.where(codes(9) > 90, np.nan, codes()).astype(np.float32)
    told = attribute(evidence(side(), other, pair(codes().astype(np.float32), nan)))
    assert (told.mechanism, told.blamed) == (Mechanism.FAULT, "bad")
    assert "NaN" in told.because[0]


def test_another_version_is_named_with_what_it_rounds() -> None:
    old = side("b", factors={"unit": "a72-1", "version": "2.14", "runtime": "tflite-runtime"},
               arithmetic={"conv": "double"})  # fmt: skip
    told = attribute(
        evidence(
            side("a", factors={"unit": "a72-1"}, arithmetic={"conv": "half-even"}), old, ROUNDED
        )
    )
    assert (told.mechanism, told.factors) == (Mechanism.KERNEL, ("runtime",))
    assert "probes of conv: half-even / double" in told.because


def test_rounding_is_likely_with_probes_and_possible_without() -> None:
    a53 = side("a53", factors={"core": "cortex-a53"})
    assert attribute(evidence(side(), a53, ROUNDED)).confidence == "possible"
    probed = evidence(
        side(arithmetic={"uint8 conv": "half-up", "add": "half-up"}),
        replace(a53, arithmetic={"uint8 conv": "rndnu16", "add": "half-away"}),
        ROUNDED,
        families=frozenset({"uint8 conv"}),
    )
    told = attribute(probed)
    assert (told.mechanism, told.confidence) == (Mechanism.ROUNDING, "likely")
    assert [line for line in told.because if "probes" in line] == [
        "probes of uint8 conv: half-up / rndnu16"
    ]


def test_a_float_head_that_is_added_up_otherwise() -> None:
    head = np.random.default_rng(1).normal(size=(N, CLASSES)).astype(np.float32)
    other = np.nextafter(head, np.float32(9))
    told = attribute(evidence(side(), side("b", factors={"core": "x86"}), pair(head, other)))
    assert (told.mechanism, told.confidence) == (Mechanism.ROUNDING, "possible")
    assert "of the largest" in told.because[0]


def test_large_differences_that_nothing_explains_are_unknown() -> None:
    b = side("b", factors={"core": "cortex-a76"})
    told = attribute(evidence(side(), b, pair(codes(), steps(codes(), 200, 9))))
    assert told.mechanism is Mechanism.UNKNOWN
    assert told.fix is not None


def test_what_was_found_on_equal_inputs_is_told() -> None:
    """One step is what rounding does, and shown at the operator; more is something else."""
    b, convs = side("b", factors={"core": "x"}), Guilty("CONV_2D", 15, 1)
    told = attribute(evidence(side(), b, ROUNDED, guilty=(convs, Guilty("SOFTMAX", 1, None))))
    assert (told.mechanism, told.confidence) == (Mechanism.ROUNDING, "likely")
    assert told.because[-1] == "differ on equal inputs: 15 CONV_2D, max 1 LSB; 1 SOFTMAX"
    assert attribute(evidence(side(), b, ROUNDED)).confidence == "possible"
    far = attribute(evidence(side(), b, ROUNDED, guilty=(Guilty("CONV_2D", 1, 9),)))
    assert far.mechanism is Mechanism.UNKNOWN
    many = pair(codes(), steps(codes(), 200, 9))
    assert attribute(evidence(side(), b, many, guilty=(convs,))).mechanism is Mechanism.ROUNDING


def test_saturation_seen_at_an_operator_is_certain() -> None:
    a, b = side(pair_sums=False), side("b", pair_sums=True, factors={"core": "haswell"})
    for steps_off, confidence in ((9, "certain"), (1, "likely")):
        found = Guilty("QLinearConv", 2, steps_off)
        told = attribute(evidence(a, b, ROUNDED, guilty=(found,), saturable=3))
        assert (told.mechanism, told.confidence) == (Mechanism.SATURATION, confidence)


@given(st.permutations(range(CLASSES)))
def test_any_swap_of_columns_is_found_and_none_invented(order: list[int]) -> None:
    a = codes().astype(np.float64)
    found = swapped_columns([(a, a[:, order])])
    if order == list(range(CLASSES)):
        assert found is None
    else:
        assert found is not None
        assert np.array_equal(a[:, order][:, found], a)


def test_constant_outputs_and_few_samples_have_no_columns_to_swap() -> None:
    constant = np.ones((N, CLASSES))
    assert swapped_columns([(constant, constant * 2)]) is None
    few = codes()[:2].astype(np.float64)
    assert swapped_columns([(few, few[:, ::-1])]) is None


@pytest.mark.parametrize(
    ("machine", "isa", "expected"),
    [
        ("x86_64", {"avx2", "fma"}, True),
        ("x86_64", {"avx2", "avx512f", "avx512_vnni"}, False),
        ("x86_64", {"sse4_1"}, False),
        ("aarch64", {"asimd"}, False),
        (None, {"asimd"}, None),
        ("x86_64", set(), None),
    ],
)
def test_which_cpus_add_pairs_in_int16(
    machine: str | None, isa: set[str], expected: bool | None
) -> None:
    assert adds_pairs_in_int16(machine, frozenset(isa)) is expected


def test_where_something_is_unknown_no_unit_is_blamed_for_being_alone() -> None:
    told = attribute(replace(evidence(side(), side("b"), ROUNDED), changed=None))
    assert told.mechanism is Mechanism.ROUNDING
    assert told.factors is None
