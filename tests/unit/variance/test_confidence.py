"""Heads, samples and calibration: what is decided by values, and figures counted a second way."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from orchestrator.variance import calibration, device, sample
from orchestrator.variance.answers import Answers, read
from orchestrator.variance.lattice import Output
from orchestrator.variance.softmax import SMALLEST, Head, head
from orchestrator.variance.tasks import Anomaly, Classification, Regression, Task
from tests.unit.variance.arrays import f32, i8

Floats = NDArray[np.float64]
LOGITS = hnp.arrays(np.float32, (8, 4), elements=st.floats(-30, 30, width=32))
LABELS = np.array([0, 1, 2, 3, 3, 2, 1, 0])


def answers(values: Any, labels: Any = None, task: Task | None = None, **lattice: Any) -> Answers:
    known = None if labels is None else np.asarray(labels)
    return read(task or Classification(), [Output("y", np.asarray(values), **lattice)], known)


def known(p: Any) -> Head:
    return Head("probabilities", "by hand", np.array(p, np.float64))


@pytest.mark.parametrize(
    ("values", "lattice", "kind"),
    [
        (f32([[0.2, 0.8], [1.0, 0.0]]), {}, "probabilities"),
        (f32([[0.2, 0.8], [3.0, 0.0]]), {}, "logits"),
        (f32([[-0.1, 0.8], [0.5, 0.5]]), {}, "logits"),
        (f32([[0.2, 0.9], [0.5, 0.5]]), {}, "unclear"),  # independent scores?
        (f32([[0.0, 0.0], [0.0, 0.0]]), {}, "unclear"),
        (i8([[-128, 127], [0, 0]]), {"scale": 1 / 256, "zero_point": -128}, "probabilities"),
        (i8([[100, -20], [0, 7]]), {"scale": 0.1, "zero_point": 0}, "logits"),
        (i8([[100, -20], [0, 7]]), {}, "unclear"),  # no scale: no real values
        (f32([[np.nan, 1.0]]), {}, "unclear"),
    ],
)
def test_what_a_head_holds_is_decided_by_its_values(
    values: Any, lattice: dict[str, Any], kind: str
) -> None:
    found = head(answers(values, **lattice))
    assert found.kind == kind
    assert found.why
    assert (found.p is None) == (kind == "unclear")


def test_other_tasks_have_no_class_probabilities() -> None:
    for task in (Regression(0.1), Anomaly(0.5, "max_output")):
        assert head(answers(f32([[0.2, 0.8]]), task=task)).kind == "unclear"


def test_a_quantised_softmax_is_normalised_and_knows_its_resolution() -> None:
    found = head(answers(i8([[-128, 127, -127]]), scale=1 / 256, zero_point=-128))
    assert found.p is not None
    assert found.p.tolist() == [[0.0, 255 / 256, 1 / 256]]
    assert found.floor == 1 / 512
    assert sample.nll(found, np.array([0]))[0] == pytest.approx(math.log(512))


def test_ten_thousand_classes_below_half_a_step_are_uniform_not_lost() -> None:
    q = np.full((3, 10_000), -128, np.int8)
    q[1, 5] = 127
    found = head(answers(q, [5, 5, 5], scale=1 / 256, zero_point=-128))
    assert found.p is not None
    assert found.p[0, 0] == pytest.approx(1e-4)
    assert found.p1 is not None
    assert found.p1[1] == 1.0


U8: dict[str, Any] = {"scale": 1 / 256, "zero_point": 0}
RNG = np.random.default_rng(5)


def soft(classes: int, temperature: float, n: int = 40) -> Floats:
    x = RNG.normal(0, temperature, (n, classes))
    e = np.exp(x - x.max(axis=1, keepdims=True))
    found: Floats = e / e.sum(axis=1, keepdims=True)
    return found


def u8(p: Floats) -> NDArray[np.uint8]:
    return np.clip(np.rint(p * 256), 0, 255).astype(np.uint8)


def one_row(classes: int, *values: float) -> Floats:
    found = np.zeros((1, classes))
    found[0, : len(values)] = values
    return found


@pytest.mark.parametrize("classes", [2, 10, 1001, 30_000])
@pytest.mark.parametrize("temperature", [0.01, 1.0, 10.0])
def test_a_softmax_is_known_in_every_type_it_is_stored_in(classes: int, temperature: float) -> None:
    p = soft(classes, temperature, n=8)
    e = np.exp(RNG.normal(0, temperature, (8, classes)).astype(np.float32))
    one_by_one = np.array([np.add.accumulate(row)[-1] for row in e])  # the worst order of a sum
    stored: list[tuple[Any, dict[str, Any]]] = [
        (p, {}),
        (p.astype(np.float32), {}),
        (e / one_by_one[:, None], {}),
        (e * (np.float32(1) / one_by_one)[:, None], {}),
        (p.astype(np.float16), {}),
        (p.astype(np.float16).astype(np.float32), {}),  # a delegate that computes in half floats
        (u8(p), U8),
        ((u8(p).astype(np.int16) - 128).astype(np.int8), {"scale": 1 / 256, "zero_point": -128}),
        (np.rint(p * 32768).clip(0, 32767).astype(np.int16), {"scale": 1 / 32768, "zero_point": 0}),
        (np.rint(p * 255).astype(np.uint8), {"scale": 1 / 255, "zero_point": 0}),
        ((u8(p) / 256).astype(np.float32), {**U8, "code_min": 0, "code_max": 255}),
    ]
    for values, lattice in stored:
        found = head(answers(values, **lattice))
        assert found.kind == "probabilities", (values.dtype, lattice, found.why)
        assert found.p is not None
        assert np.abs(found.p - p).max() < 0.02 or values.dtype != np.uint8
        assert found.p.sum(axis=1) == pytest.approx(np.ones(8))
        assert found.p.min() >= 0


@pytest.mark.parametrize(
    ("values", "lattice"),
    [
        (one_row(1001, 0.5), {}),
        (one_row(1001, 0.5, 0.5, 0.5), {}),
        (one_row(1001, 1.0, 1.0, 1.0), {}),
        (one_row(1001, 0.5, 0.499), {}),
        (one_row(1001, 0.5, 0.501), {}),
        (one_row(30_000, 0.5, 0.497), {}),
        (u8(one_row(1001, 0.5, 0.5, 0.5)), U8),
        (u8(one_row(1001, 0.99, 0.99, 0.99)), U8),
        (u8(np.full((1, 1001), 3 / 1001)), U8),
        (u8(np.full((1, 1001), 0.5)), U8),
        (u8(one_row(10, 0.5)), U8),
        (u8(one_row(10, 0.5, 0.5, 0.5)), U8),
        (u8(one_row(100, 0.5)), U8),
        (np.rint(one_row(1001, 0.5) * 2**15).astype(np.int16), {"scale": 2**-15, "zero_point": 0}),
        (one_row(1001, 0.5, 0.25).astype(np.float16), {}),
        (one_row(1001, 0.5, 0.75).astype(np.float16), {}),
    ],
)  # fmt: skip
def test_scores_that_no_distribution_rounds_to_are_none(
    values: Any, lattice: dict[str, Any]
) -> None:
    """At 1,001 classes and a step of 1/256 half a step a class would allow any sum from -1 to 3."""
    values = values.astype(np.float32) if values.dtype == np.float64 else values
    assert head(answers(values, **lattice)).kind == "unclear"
    sound = np.zeros_like(values)
    sound[0, 0] = 1 if values.dtype.kind == "f" else round(1 / lattice["scale"]) - 1
    both = np.concatenate([sound, values])
    assert head(answers(both, **lattice)).kind == "unclear", "one sample that is none is enough"


@pytest.mark.parametrize(
    "values",
    [
        f32([[-0.0005, 0.5, 0.5005]]),
        f32([[-1e-6, 1.000001, 0.0]]),
        f32([[-0.5, 0.75, 0.75]]),
        f32([[0.0, 1.001, 0.0]]),
    ],
)
def test_a_negative_score_is_no_probability_whatever_the_sum(values: Any) -> None:
    assert head(answers(values)).kind == "logits"
    wide = np.zeros((1, 1001), np.int8)
    wide[0, :3] = (-1, 65, 64)
    assert head(answers(wide, scale=1 / 128, zero_point=0)).kind == "logits"


def test_what_zeros_hide_is_not_given_to_the_largest() -> None:
    """Half of it is spread over a thousand classes: the device is sure to 50 %, not to 100 %."""
    found = head(answers(u8(one_row(1001, 0.5)), [0], **U8))
    assert found.kind == "probabilities"
    assert found.p1 is not None
    assert found.p1[0] == pytest.approx(0.5)


def test_a_lattice_that_ends_below_one_hides_the_rest_at_its_end() -> None:
    found = head(answers(i8([[127, -128, -128]]), scale=0.0035, zero_point=-128))
    assert found.p is not None
    assert found.p.tolist() == [[1.0, 0.0, 0.0]]


def test_samples_without_a_number_stay_in_place_without_a_probability() -> None:
    found = head(answers(f32([[5, 0], [np.inf, 0], [0, 5]])))
    assert found.p is not None
    assert np.isnan(found.p[1]).all()
    assert np.isfinite(found.p[[0, 2]]).all()


@given(LOGITS)
def test_a_model_against_itself_diverges_by_exactly_nothing(x: NDArray[np.float32]) -> None:
    found = head(answers(x))
    if found.p is None:
        return
    for measure in (sample.kld, sample.tv, sample.jsd):
        assert measure(found, found).tolist() == [0.0] * 8


@given(LOGITS, LOGITS)
def test_divergences_agree_with_their_definitions(
    x: NDArray[np.float32], y: NDArray[np.float32]
) -> None:
    a, b = (
        known(np.exp(v) / np.exp(v).sum(axis=1, keepdims=True)) for v in map(np.float64, (x, y))
    )
    assert a.p is not None
    assert b.p is not None
    rows = list(zip(a.p.tolist(), b.p.tolist(), strict=True))
    kl = [sum(p * math.log(p / q) for p, q in zip(u, v, strict=True)) for u, v in rows]
    tv = [sum(abs(p - q) for p, q in zip(u, v, strict=True)) / 2 for u, v in rows]
    assert sample.kld(a, b).tolist() == pytest.approx(kl, abs=1e-9)
    assert sample.tv(a, b).tolist() == pytest.approx(tv, abs=1e-12)
    assert sample.tv(a, b).tolist() == sample.tv(b, a).tolist()
    assert sample.jsd(a, b).tolist() == pytest.approx(sample.jsd(b, a).tolist(), abs=1e-15)
    assert (sample.jsd(a, b) <= math.log(2) + 1e-12).all()
    naive = [-sum(p * math.log(p) for p in u) for u, _ in rows]
    assert sample.entropy(a.p).tolist() == pytest.approx(naive, abs=1e-9)


def test_sample_by_sample_by_hand() -> None:
    fp32 = answers(f32([[0, 2, 1], [2, 0, 1], [2, 1, 0]]), [1, 0, 1])
    int8 = answers(i8([[0, 20, 10], [0, 20, 10], [10, 20, 0]]), [1, 0, 1], scale=0.1, zero_point=0)
    found = sample.samples(int8, np.array([1, 0, 1]), fp32)
    assert found["top"].tolist() == [[1, 2, 0], [1, 2, 0], [1, 0, 2]]
    assert found["margin"].tolist() == [10, 10, 10]
    assert found["correct"].tolist() == [True, False, True]
    assert found["c_to_i"].tolist() == [False, True, False]
    assert found["i_to_c"].tolist() == [False, False, True]
    assert found["disagree"].tolist() == [False, True, True]
    p1 = math.exp(2) / (1 + math.exp(1) + math.exp(2))
    assert found["p1"].tolist() == pytest.approx([p1] * 3)
    assert found["nll"][0] == pytest.approx(-math.log(p1))
    assert (found["kld"][0], found["tv"][0]) == pytest.approx((0, 0), abs=1e-6)
    assert set(sample.samples(answers(f32([[0.1, 0.2]])))) == {"decision", "top"}


def test_the_five_best_take_the_first_of_equals() -> None:
    best = sample.top_k(answers(f32([[1, 3, 3, 0, 2, 2], [np.nan, 0, 0, 0, 0, 0]])))
    assert best is not None
    assert best.tolist() == [[1, 2, 4, 5, 0], [-1] * 5]


def test_calibration_error_by_hand() -> None:
    # Bins of 1/15: 0.95 and 1.0 share the last one, 0.5 lies alone.
    p1, right = np.array([0.95, 1.0, 0.5]), np.array([True, False, True])
    expected = (abs(1 - 1.95) + abs(1 - 0.5)) / 3
    assert calibration.expected_calibration_error(p1, right) == pytest.approx(expected)


@given(
    st.lists(st.tuples(st.integers(0, 256), st.booleans()), min_size=1, max_size=60), st.randoms()
)
def test_calibration_error_agrees_with_a_loop_over_bins(
    drawn: list[tuple[int, bool]], random: Any
) -> None:
    p1, right = np.array([k / 256 for k, _ in drawn]), np.array([r for _, r in drawn])
    total = 0.0
    for b in range(15):
        mine = [i for i, p in enumerate(p1) if (b == 0 or p > b / 15) and p <= (b + 1) / 15]
        if mine:
            confident = sum(p1[i] for i in mine) / len(mine)
            accurate = sum(bool(right[i]) for i in mine) / len(mine)
            total += len(mine) / len(p1) * abs(accurate - confident)
    found = calibration.expected_calibration_error(p1, right)
    assert found == pytest.approx(total, abs=1e-12)
    order = list(range(len(p1)))
    random.shuffle(order)
    shuffled = calibration.expected_calibration_error(p1[order], right[order])
    assert shuffled == pytest.approx(found, abs=1e-12)


@given(hnp.arrays(np.float64, (8, 4), elements=st.floats(0, 1)))
def test_brier_agrees_with_its_definition(x: Floats) -> None:
    p = (x + 1e-3) / (x + 1e-3).sum(axis=1, keepdims=True)
    onehot = np.eye(4)[LABELS]
    assert calibration.brier(p, LABELS) == pytest.approx(((p - onehot) ** 2).sum(axis=1), abs=1e-12)
    assert calibration.brier(onehot, LABELS).tolist() == [0.0] * 8


def test_a_device_in_full() -> None:
    rng = np.random.default_rng(3)
    x = rng.normal(0, 3, (200, 8)).astype(np.float32)
    labels = np.where(rng.random(200) < 0.8, x.argmax(1), 0)
    fp32, own = answers(x, labels), answers(x + rng.normal(0, 0.5, x.shape), labels)
    found = device.stats(own, head(own), (fp32, head(fp32)), labels, seed=1)
    again = device.stats(own, head(own), (fp32, head(fp32)), labels, seed=1)
    assert found == again, "intervals of equal seeds are equal"
    assert found.head == "logits"
    assert found.top5 is not None
    assert found.accuracy is not None
    assert found.top5.k >= found.accuracy.k
    assert found.fp32 is not None
    assert found.change is not None
    assert (found.change.gained, found.change.lost) == (found.fp32.i_to_c, found.fp32.c_to_i)
    assert found.change.low <= (found.change.difference or 0) <= found.change.high
    assert found.kld is not None
    assert (found.kld.low or 0) > 0
    assert found.calibration is not None
    assert found.calibration.ece.low is not None
    assert found.confidence is not None
    assert found.confidence.n == found.confidence.low.n == 200


def test_without_labels_probabilities_or_parent_nothing_is_made_up() -> None:
    own = answers(f32([[0.1, 0.2], [0.3, 0.1]]))
    found = device.stats(own, head(own), None, None, seed=0)
    assert (found.head, found.n) == ("unclear", 2)
    missing = (found.accuracy, found.top5, found.entropy, found.confidence, found.calibration)
    assert missing == (None,) * 5
    assert (found.fp32, found.change, found.kld, found.tv) == (None,) * 4


def test_one_sample_has_a_value_and_no_interval() -> None:
    own = answers(f32([[3, 1, 0]]), [0])
    found = device.stats(own, head(own), None, np.array([0]), seed=0)
    assert found.calibration is not None
    ece = found.calibration.ece
    assert ece.value is not None
    assert (ece.n, ece.low, ece.high) == (1, None, None)
    assert found.entropy is not None
    assert found.entropy.low is None


def test_a_parent_with_other_classes_has_no_divergence() -> None:
    own, fp32 = answers(f32([[3, 1, 0]]), [0]), answers(f32([[3, 1]]), [0])
    found = device.stats(own, head(own), (fp32, head(fp32)), np.array([0]), seed=0)
    assert (found.kld, found.tv) == (None, None)


def test_constant_outputs_are_answers_like_others() -> None:
    own = answers(np.full((5, 3), 7, np.int8), [0, 1, 2, 0, 1], scale=1.0, zero_point=0)
    found = device.stats(own, head(own), (own, head(own)), np.array([0, 1, 2, 0, 1]), seed=0)
    assert found.confidence is not None
    assert [p.value for p in found.confidence.p1_percentiles] == pytest.approx([1 / 3] * 3)
    assert [p.n for p in found.confidence.p1_percentiles] == [5, 5, 5]
    assert found.confidence.low.k == 5
    assert found.kld is not None
    assert (found.kld.value, found.kld.low, found.kld.high) == (0, 0, 0)
    assert SMALLEST > 0
