from __future__ import annotations

import copy
import json
import math
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.analysis import document
from orchestrator.reports import jsonout
from orchestrator.signoff.result import COVERAGE
from tests.unit.reports import synthetic


def _validator() -> jsonschema.Draft202012Validator:
    jsonschema.Draft202012Validator.check_schema(document.schema())
    return jsonschema.Draft202012Validator(document.schema())


def test_the_built_document_follows_its_schema() -> None:
    _validator().validate(synthetic.result())


@pytest.mark.parametrize(
    "path",
    [
        ("run", "id"),
        ("verdict",),
        ("rows", 1, "is_reference"),
        ("rows", 1, "accuracy", "k"),
        ("rows", 1, "gates", 0, "limit"),
        ("pairs", 0, "disagreement"),
        ("fleet", 0, "instability"),
        ("coverage", "pending"),
        ("latency", "digits_cnn.qdq-u8s8@host/onnxruntime", "timing_valid"),
        ("traces", 0, "temp_c"),
        ("attempts", 0, "outcome"),
    ],
)
def test_the_schema_misses_what_is_missing(path: tuple[str | int, ...]) -> None:
    broken: Any = synthetic.result()
    parent = broken
    for step in path[:-1]:
        parent = parent[step]
    del parent[path[-1]]
    assert [list(error.absolute_path) for error in _validator().iter_errors(broken)] == [
        list(path[:-1])
    ]


def test_the_schema_refuses_an_unknown_verdict_and_accepts_new_fields() -> None:
    changed = synthetic.result()
    changed["rows"][0]["added_later"] = 1
    _validator().validate(changed)
    changed["verdict"] = "skipped"
    with pytest.raises(jsonschema.ValidationError):
        _validator().validate(changed)


def _build(trace: dict[str, Any], coverage: dict[str, int] | None = None) -> dict[str, Any]:
    base = synthetic.result()
    return document.build(base["run"], base, coverage or {}, {}, [trace], [])


def test_outcomes_that_did_not_occur_count_zero() -> None:
    built = _build(synthetic.result()["traces"][0], {"planned": 3, "ok": 3})
    assert built["coverage"] == dict.fromkeys(COVERAGE, 0) | {"planned": 3, "ok": 3}


def test_a_sign_off_without_one_of_its_parts_is_refused() -> None:
    base = synthetic.result()
    del base["pairs"]
    with pytest.raises(KeyError, match="pairs"):
        document.build(base["run"], base, {}, {}, [], [])


def test_building_leaves_its_inputs_alone() -> None:
    base = synthetic.result()
    before = copy.deepcopy(base)
    document.build(
        base["run"], base, base["coverage"], base["latency"], base["traces"], base["attempts"]
    )
    assert base == before


def test_long_traces_are_thinned_together_and_keep_both_ends() -> None:
    length = 5000
    times = [float(i) for i in range(length)]
    built = _build(
        {
            "row": "r",
            "attempt": "a",
            "t_s": times,
            "temp_c": {"cpu": [t / 10 if t < 4000 else None for t in times]},
            "freq_khz": {"cpu0": times},
            "latency_us": [9999.0 if i == 3333 else 1.0 for i in range(length)],
        }
    )["traces"][0]
    assert len(built["t_s"]) == document.MAX_POINTS
    assert (built["t_s"][0], built["t_s"][-1]) == (0.0, 4999.0)
    assert built["freq_khz"]["cpu0"] == built["t_s"]
    for t, heat in zip(built["t_s"], built["temp_c"]["cpu"], strict=True):
        assert heat == (t / 10 if t < 4000 else None)
    assert 9999.0 in built["latency_us"]
    assert len(built["latency_us"]) <= document.MAX_POINTS


@given(st.lists(st.none() | st.floats(allow_nan=False, allow_infinity=False), max_size=2000))
def test_thinning_keeps_the_extremes_and_the_order(values: list[float | None]) -> None:
    kept = document.thin(values, 20)
    assert len(kept) <= max(20, 0)
    rest = iter(values)
    assert all(any(value == other for other in rest) for value in kept)
    known = [value for value in values if value is not None]
    if known:
        shown = [value for value in kept if value is not None]
        assert (min(shown), max(shown)) == (min(known), max(known))


def test_json_is_the_same_for_the_same_document() -> None:
    one = synthetic.result()
    other = dict(reversed(list(synthetic.result().items())))
    assert jsonout.dumps(one) == jsonout.dumps(other)
    assert json.loads(jsonout.dumps(one)) == one


def test_json_keeps_names_readable_and_refuses_nan() -> None:
    assert jsonout.dumps({"name": "Größe"}) == '{\n  "name": "Größe"\n}\n'
    with pytest.raises(ValueError, match="JSON"):
        jsonout.dumps({"p50_us": math.nan})


def test_the_guide_names_every_field() -> None:
    guide = (Path(__file__).parents[3] / "docs" / "guides" / "json-schema.md").read_text("utf-8")
    definitions = document.schema()["$defs"]
    parts = (definitions[name]["required"] for name in ("fp32", "vs_reference", "repeat", "gate"))
    wanted = {*document.schema()["required"], *COVERAGE, *(f for p in parts for f in p)}
    assert {name for name in wanted if f"`{name}`" not in guide} == set()
