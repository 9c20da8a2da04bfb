"""State that is carried from one sample to the next, found by `assay run`."""

from __future__ import annotations

from pathlib import Path

import jsonschema
import numpy as np

from orchestrator.analysis.document import schema
from tests.support import stateful
from tests.support.cli import assay
from tests.support.tiny import Tiny

N = 12


def test_carried_state_is_found_where_it_is_not_reset(tmp_path: Path) -> None:
    tiny, report, store = Tiny(tmp_path), tmp_path / "report.html", tmp_path / "store"
    stateful.svdf(tmp_path / "memory.tflite")
    np.save(tmp_path / "x.npy", np.random.default_rng(1).normal(size=(N, 4)).astype(np.float32))
    model = tiny.matrix["models"][0]
    model["files"] = [{"name": "f32", "path": "memory.tflite"}]
    del model["fp32"]
    tiny.matrix["inputs"] = [{"name": "digits", "type": "npy", "path": "x.npy"}]
    tiny.matrix["runtimes"] = [
        {"name": "on", "runtime": "litert"},
        {"name": "off", "runtime": "litert", "reset": "off"},
    ]
    tiny.matrix["conditions"] = ["clean", "order:7", "repeat:2"]
    tiny.policy["reference"] = [{"device": "bench", "runtime": "on"}]
    tiny.policy["gates"]["G2"] = {"enabled": True, "min_repeats": 2, "min_samples": 1}

    done = assay("run", tiny.write(), "--report", report, "--json", store=store)
    assert done.code == 1
    document = done.json
    jsonschema.validate(document, schema())
    rows = {row["runtime"]: row for row in document["rows"]}
    none = {"finding": None, "k": 0, "n": N, "again_k": 0, "again_n": 1}
    assert rows["on"]["order"] == none
    found = rows["off"]["order"]
    assert (found["finding"], found["n"]) == ("state carry-over", N)
    assert (found["again_k"], found["again_n"]) == (1, 1)
    assert found["k"] > N / 2

    gates = {k: next(g for g in row["gates"] if g["gate"] == "G2") for k, row in rows.items()}
    assert [gates["on"]["verdict"], gates["off"]["verdict"]] == ["pass", "fail"]
    assert "order dependence: " in gates["off"]["reason"]
    assert "state carry-over: sample " in gates["off"]["reason"]

    told = assay("explain", "bench/on", "bench/off", "--json", store=store)
    assert told.code == 0, told
    (why,) = told.json["pairs"]
    assert (why["mechanism"], why["blamed"]) == ("state carry-over", "bench/off")
    assert why["fix"] == "reset the model's state between samples"

    assert "<dt>order</dt><dd>state carry-over: " in report.read_text()
    lines = [x for x in assay("signoff", store=store).out.splitlines() if "carry-over: " in x]
    assert lines[0].startswith("cnn.f32@bench/off: state carry-over: ")
    assert not any("bench/on" in x for x in lines)
