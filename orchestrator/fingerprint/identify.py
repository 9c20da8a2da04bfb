"""From the answers of a device to its fingerprint.

The fingerprint *is* the answers, by their hashes; the modes of the golden reference only give them
names. So a kernel nobody has described yet is still told from every other one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_worker.runtimes.plan import plan_of
from orchestrator.devices.batch import Answered, Answers
from orchestrator.errors import InfraError
from orchestrator.fingerprint.describe import identity, label, plan_words
from orchestrator.fingerprint.pack import archive, probes, wide
from orchestrator.fingerprint.probe import Probe
from orchestrator.store.records import sha256_of

SCHEMA = "assay.fingerprint/1"


def identify(model_format: str, once: Answers, threads: Mapping[int, Answers]) -> dict[str, Any]:
    """The JSON document of a fingerprint, from the answers under one thread and under more.

    ``threads``: number of threads -> answers to the wide probes. Raises InfraError E-PROBE-INPUT
    when a probe was fed other bytes than it should.
    """
    families: dict[str, dict[str, Any]] = {}
    for probe in probes(model_format):
        told = _told(probe, once[probe.name])
        families.setdefault(probe.family, {"probes": {}})["probes"][probe.name] = told
    for family in families.values():
        family["mode"] = label(list(family["probes"].values()))
        family["sha256"] = sha256_of({n: p["answer"] for n, p in family["probes"].items()})
        plans = {n: p["plan"] for n, p in family["probes"].items() if p["plan"] is not None}
        if plans:
            family["plan"] = plan_words(plans.values())
            family["plan_sha256"] = sha256_of(plans)
    differ = {
        str(count): _differing(model_format, once, answers)
        for count, answers in sorted(threads.items())
    }
    document = {
        "schema": SCHEMA,
        "pack": archive(probes(model_format)).blob.sha256,
        "format": model_format,
        "families": families,
        "threads": {n: sorted(names) for n, names in differ.items()},
    }
    return document | {"sha256": identity(document)}


def _told(probe: Probe, answered: Answered) -> dict[str, Any]:
    """What one probe says: hash of the answer, modes that give the same, the optimised graph."""
    tried = answered.tried
    if tried.input_sha256 != list(_inputs(probe)):
        raise InfraError(
            "E-PROBE-INPUT",
            f"the device made other inputs for probe {probe.name} than it was told to",
            fix="its NumPy draws or rounds differently: check the installation",
            retryable=False,
        )
    if tried.error is not None:
        code = tried.error["code"]
        return {"answer": f"error:{code}", "modes": None, "error": code, "plan": None}
    told, output = tried.outputs[0], answered.outputs[0]
    return {
        "answer": sha256_of([told.dtype, told.shape, told.sha256]),
        "modes": modes(probe, output),
        "error": None,
        "plan": None if answered.graph is None else plan_of(answered.graph).operators,
    }


def modes(probe: Probe, output: NDArray[Any]) -> list[str] | None:
    """The modes that give ``output`` bit for bit; "float" for values between the steps.

    None: the golden reference does not know this operator.
    """
    values = output
    if not _expected(probe):
        return None
    if probe.step is not None:
        values = output.astype(np.float64) / probe.step
        if not np.array_equal(values, np.rint(values)):
            return ["float"]
    return [
        mode
        for mode, codes in _expected(probe).items()
        if codes.shape == values.shape and np.array_equal(codes, values)
    ]


@cache
def _expected(probe: Probe) -> Mapping[str, NDArray[Any]]:
    return probe.expected()


@cache
def _inputs(probe: Probe) -> tuple[str, ...]:
    return tuple(hashlib.sha256(feed.values().tobytes()).hexdigest() for feed in probe.feeds)


def _differing(model_format: str, once: Answers, other: Answers) -> Sequence[str]:
    """Wide probes whose answer changes with the number of threads."""
    return [
        probe.name
        for probe in wide(model_format)
        if [o.sha256 for o in once[probe.name].tried.outputs]
        != [o.sha256 for o in other[probe.name].tried.outputs]
    ]
