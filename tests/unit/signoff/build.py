"""Evidence by hand: rows that agree with their parent everywhere unless told otherwise."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.matrix.policy import Policy
from orchestrator.signoff.judge import judge
from orchestrator.signoff.result import GateResult, RowResult, SignOff
from orchestrator.variance.observation import Observation, Order, Output, Row, Soak, Truth
from orchestrator.variance.tasks import Classification
from tests.unit.variance.arrays import f32

Codes = NDArray[np.int8]
LATTICE = (0.5, 0, -128, 127)


def codes(n: int = 1000, *, flipped: int = 0, by: int = 0) -> Codes:
    """[n, 2] where every sample decides 0 by 40 steps.

    The first ``flipped`` decide 1, and all second values are raised by ``by`` steps.
    """
    q = np.zeros((n, 2), np.int8)
    q[:, 0] = 40
    q[:flipped, 1] = 80
    q[:, 1] += np.int8(by)
    return q


def outputs(q: NDArray[Any]) -> tuple[Output, ...]:
    return (Output("logits", q, *LATTICE),)


def row(device: str = "rpi4", **over: Any) -> Row:
    kind: dict[str, Any] = {
        "model": "net",
        "file": "int8",
        "device": device,
        "device_class": device,
        "emulated": False,
        "runtime": "ort",
        "inputs": "test",
        "condition": "clean",
    }
    return Row(**(kind | over))


def clean(device: str = "rpi4", q: Codes | None = None, **over: Any) -> Observation:
    """An ok clean cell; ``over`` sets fields of the row or of the observation."""
    of_row = {k: over.pop(k) for k in list(over) if k in Row.__dataclass_fields__}
    r = row(device, **of_row)
    fields: dict[str, Any] = {
        "row": r,
        "cell": f"{r.model}.{r.file}@{device}/{r.runtime}:{r.condition}",
        "status": "ok",
        "attempt": f"a-{device}-{r.runtime}-{r.condition}",
        "outputs": outputs(codes() if q is None else q),
        "planned_backend": "CPUExecutionProvider",
        "file_sha256": "ab" * 32,
    }
    return Observation(**(fields | over))


def repeated(device: str = "rpi4", **over: Any) -> Observation:
    """An ok repeat cell that did what G2 asks for."""
    fields: dict[str, Any] = {"repeats": 100, "repeat_samples": 8, "condition": "repeat:100"}
    return clean(device, codes(8), **(fields | over))


def soaked(device: str = "rpi4", **over: Any) -> Observation:
    """An ok soak cell that reached its target; ``over`` may set fields of the soak as well."""
    told: dict[str, Any] = {
        "target_c": 75.0,
        "reached": True,
        "heat_s": 120.0,
        "hold_s": 60.0,
        "inferences": 900,
        "mismatches": 0,
        "max_c": 76.5,
    }
    soak = Soak(**(told | {k: over.pop(k) for k in list(over) if k in told}))
    fields: dict[str, Any] = {"repeat_samples": 8, "condition": "soak:75C", "soak": soak}
    return clean(device, over.pop("q", codes(8)), **(fields | over))


def powered(device: str = "rpi4", q: Codes | None = None, **over: Any) -> Observation:
    """An ok cell under a power mode."""
    return clean(device, q, **({"condition": "power:save", "power": "low"} | over))


def shuffled(
    device: str = "rpi4", q: Codes | None = None, same: bool = True, **over: Any
) -> Observation:
    """An ok order cell; ``same``: its first sample gave the same bytes again at the end."""
    return clean(device, q, **({"condition": "order:7", "order": Order(7, 4, same)} | over))


def device(name: str = "rpi4", q: Codes | None = None, **over: Any) -> list[Observation]:
    """Both cells of a device."""
    return [clean(name, q, **over), repeated(name, **over)]


def failed(device: str = "rpi4", status: str = "infra_error", **over: Any) -> Observation:
    return clean(device, status=status, outputs=(), error="link lost", file_sha256="", **over)


def truth(n: int = 1000, **over: Any) -> Truth:
    fields: dict[str, Any] = {
        "task": Classification(),
        "labels": np.zeros(n, np.int64),
        "fp32": (Output("logits", np.tile(f32([20.0, 0.0]), (n, 1))),),
        "fp32_attempt": "fp32-1",
    }
    return Truth(**(fields | over))


def policy(**over: Any) -> Policy:
    reference = [{"device": "ref", "runtime": "ort"}]
    return Policy.model_validate({"name": "test", "reference": reference} | over)


def decide(
    *observations: Observation | list[Observation],
    policy_: Policy | None = None,
    truth_: Truth | None = None,
) -> SignOff:
    flat: list[Observation] = []
    for o in observations:
        flat += o if isinstance(o, list) else [o]
    known = truth() if truth_ is None else truth_
    return judge(policy_ or policy(), flat, {("net", "test"): known})


def of(sign_off: SignOff, device: str = "rpi4") -> RowResult:
    return next(r for r in sign_off.rows if r.device == device)


def gate(result: RowResult, name: str) -> GateResult:
    return next(g for g in result.gates if g.gate == name)
