"""A realistic result document: 2 nets × 4 files × 8 devices, with what goes wrong in practice."""

from __future__ import annotations

import hashlib
import math
import random
from typing import Any

from orchestrator.analysis import document

N = 360
CREATED = 1_790_000_000.0
DEVICES = (
    # name, class, emulated, temperature zones readable
    ("host", "x86-64", False),
    ("rpi4#1", "rpi4", False),
    ("rpi4#2", "rpi4", False),
    ("rpi5#1", "rpi5", False),
    ("qemu-a72", "qemu-a72", True),
    ("qemu-a53", "qemu-a53", True),
    ("qemu-haswell", "qemu-haswell", True),
    ("qemu-badboard", "qemu-badboard", True),
)
FILES = ("tflite-int8", "qdq-u8s8", "qdq-u8u8", "qdq-reduce-range")
NETS = ("digits_cnn", "digits_dwsep")


def rate(k: int, n: int = N) -> dict[str, Any]:
    """A rate with its Wilson interval: near enough for a synthetic document."""
    z, p = 1.96, k / n
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return {
        "k": k,
        "n": n,
        "rate": p,
        "low": max(0.0, middle - half),
        "high": min(1.0, middle + half),
    }


def result(
    nets: tuple[str, ...] = NETS, devices: tuple[tuple[str, str, bool], ...] = DEVICES
) -> dict[str, Any]:
    """The built document; the same one each time."""
    rng = random.Random(20_260)
    rows = [_row(net, file, device) for net in nets for file in FILES for device in devices]
    failing = [row for row in rows if row["verdict"] == "fail"]
    classes = [_class(name, rows) for name in dict.fromkeys(row["device_class"] for row in rows)]
    attempts = [attempt for row in rows for attempt in _attempts(row, rng)]
    signoff = {
        "verdict": "fail",
        "reasons": [
            *(f"{row['id']}: {row['reasons'][0]}" for row in failing[:1]),
            f"{len(failing)} of {len(rows)} rows fail, on 2 of {len(classes)} device classes",
            "emulated classes are accepted by the policy and cover no hardware",
        ],
        "policy": {"name": "quickstart", "accept_emulated": True},
        "classes": classes,
        "rows": rows,
        "pairs": [pair for net in nets for file in FILES for pair in _pairs(net, file, rows)],
        "fleet": [_fleet(net, file, rows) for net in nets for file in FILES],
    }
    return document.build(
        {
            "id": "run-20260921-1a2b3c",
            "name": "quickstart",
            "created_unix": CREATED,
            "state": "finished",
            "matrix_sha256": "5f" * 32,
            "hosts": ["lab-hub-1"],
        },
        signoff,
        {"planned": len(rows), "ok": len(rows) - 3, "not_available": 2, "infra_error": 1},
        {row["id"]: _latency(row) for row in rows if row["status"] == "ok"},
        [
            _trace(row, rng)
            for row in rows
            if row["model"] == nets[-1] and row["file"] == FILES[1] and row["status"] == "ok"
        ],
        attempts,
        _environments(rows),
    )


def _row(net: str, file: str, device: tuple[str, str, bool]) -> dict[str, Any]:
    name, device_class, emulated = device
    runtime = "litert" if file.startswith("tflite") else "onnxruntime"
    identity = f"{net}.{file}@{name}/{runtime}"
    saturates = (net, file, name) == ("digits_dwsep", "qdq-u8s8", "qemu-haswell")
    broken = name == "qemu-badboard" and runtime == "litert"
    missing = name == "rpi4#2" and runtime == "litert"
    fp32 = 352 if net == "digits_cnn" else 349
    right = fp32 - 1 - 22 * saturates - 311 * broken
    row: dict[str, Any] = {
        "id": identity,
        "model": net,
        "file": file,
        "device": name,
        "device_class": device_class,
        "emulated": emulated,
        "runtime": runtime,
        "inputs": "digits-heldout",
        "status": "ok",
        "verdict": "pass",
        "reasons": [],
        "is_reference": name == "host",
        "reference": f"{net}.{file}@host/{runtime}",
        "attempts": [f"att-{net[7:]}-{file}-{name}"],
        "accuracy": rate(right),
        "fp32": {
            "accuracy": rate(fp32),
            "disagreement": rate(4 + 24 * saturates + 310 * broken),
            "c_to_i": 3 + 23 * saturates + 310 * broken,
            "i_to_c": 2 + saturates,
            "mcnemar_p": 0.0000031 if saturates else 1.0,
        },
        "vs_reference": None,
        "repeat": {"count": 100, "samples": 8, "mismatches": 0},
        "gates": [],
    }
    if missing:
        row |= {
            "status": "not_available",
            "verdict": "inconclusive",
            "reasons": ["no wheel of ai-edge-litert for Python 3.13 on armv7l"],
            "attempts": [],
            "accuracy": None,
            "fp32": None,
            "repeat": None,
        }
        return row
    if name != "host":
        different = 351 if broken else 274 if saturates else 0 if emulated else 2
        row["vs_reference"] = {
            "n": N,
            "bit_exact": rate(N - different),
            "elements_different": different / N * 0.4,
            "max_lsb": 201 if broken else 47 if saturates else 1 if different else 0,
            "lsb_histogram": {"0": 2100, "1": 1241, "2": 171, "10": 9, ">255": 3}
            if saturates
            else {"0": 3590 if different else 3600, **({"1": 10} if different else {})},
            "mean_signed_lsb": -1.7 if saturates else 0.003 if different else 0.0,
            "disagreement": rate(_apart(net, file, "host", name)),
            "near_tie": {"k": 9, "n": 21} if saturates else {"k": 0, "n": 0},
        }
    row["gates"] = _gates(row, saturates or broken)
    failed = [gate["reason"] for gate in row["gates"] if gate["verdict"] == "fail"]
    unsure = [gate["reason"] for gate in row["gates"] if gate["verdict"] == "inconclusive"]
    row["verdict"] = "fail" if failed else "inconclusive" if unsure else "pass"
    row["reasons"] = failed or unsure
    return row


def _gates(row: dict[str, Any], bad: bool) -> list[dict[str, Any]]:
    def gate(name: str, verdict: str, reason: str | None = None, **numbers: Any) -> dict[str, Any]:
        empty = {"observed": None, "n": None, "bound": None, "limit": None}
        return {
            **empty,
            "gate": name,
            "verdict": verdict,
            "reason": reason,
            "attempts": row["attempts"],
            **numbers,
        }

    right = row["accuracy"]["k"]
    g6 = "not_applicable" if row["is_reference"] else "fail" if bad else "inconclusive"
    return [
        gate("G0", "pass", observed="as planned"),
        gate("G2", "pass", observed=0, n=800, limit=0),
        gate(
            "G3",
            "fail" if bad else "pass",
            f"accuracy {right}/{N} is below 99 % of the FP32 parent's" if bad else None,
            observed=right / 352,
            n=N,
            bound=right / 352 - 0.008,
            limit=0.98,
        ),
        gate(
            "G5",
            "fail" if bad else "pass",
            "disagreement with the FP32 parent exceeds 5 %" if bad else None,
            observed=row["fp32"]["disagreement"]["rate"],
            n=N,
            bound=row["fp32"]["disagreement"]["high"],
            limit=0.05,
        ),
        gate(
            "G6",
            g6,
            {
                "fail": "disagreement with the reference exceeds 0.5 %",
                "inconclusive": "360 samples cannot show a disagreement ≤ 0.5 % (600 can)",
            }.get(g6),
            n=N,
            bound=0.0083,
            limit=0.005,
        ),
        gate("G7", "not_applicable" if row["is_reference"] else "pass", observed=0, limit=2),
    ]


def _apart(net: str, file: str, a: str, b: str) -> int:
    """Samples on which two devices name another class."""
    odd = {a, b}
    if "qemu-badboard" in odd and file == "tflite-int8":
        return 311
    if "qemu-haswell" in odd and (net, file) == ("digits_dwsep", "qdq-u8s8"):
        return 21
    if file == "qdq-u8s8" and {"host", "rpi5#1"} & odd and "rpi4#1" in odd:
        return 1
    return 0


def _pairs(net: str, file: str, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    mine = [
        row for row in rows if (row["model"], row["file"]) == (net, file) and row["status"] == "ok"
    ]
    pairs = []
    for i, a in enumerate(mine):
        for b in mine[i + 1 :]:
            k = _apart(net, file, a["device"], b["device"])
            pairs.append(
                {
                    "model": net,
                    "file": file,
                    "inputs": a["inputs"],
                    "a": a["id"],
                    "b": b["id"],
                    "n": N,
                    "bit_exact_rate": (N - min(N, 13 * k)) / N,
                    "max_lsb": 201 if k > 300 else 47 if k > 20 else k,
                    "lsb_histogram": None,
                    "disagreement": rate(k),
                    "near_tie": {"k": k // 2, "n": k},
                }
            )
    return pairs


def _fleet(net: str, file: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    mine = [
        row["id"]
        for row in rows
        if (row["model"], row["file"]) == (net, file) and row["status"] == "ok"
    ]
    worst = max(_pairs(net, file, rows), key=lambda pair: int(pair["disagreement"]["k"]))
    k = worst["disagreement"]["k"]
    return {
        "model": net,
        "file": file,
        "inputs": "digits-heldout",
        "n": N,
        "rows": mine,
        "instability": rate(k),
        "unanimity": rate(N - k),
        "worst_pair": {name: worst[name] for name in ("a", "b", "disagreement")} if k else None,
    }


def _class(name: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    mine = [row for row in rows if row["device_class"] == name]
    order = ("fail", "inconclusive", "pass")
    worst = min((row["verdict"] for row in mine), key=order.index)
    culprit = next(row for row in mine if row["verdict"] == worst)
    reasons = [f"{culprit['id']}: {culprit['reasons'][0]}"] if culprit["reasons"] else []
    return {
        "device_class": name,
        "emulated": mine[0]["emulated"],
        "verdict": worst,
        "reasons": reasons,
        "rows": [row["id"] for row in mine],
    }


def _latency(row: dict[str, Any]) -> dict[str, Any]:
    base = 40.0 if row["device"] == "host" else 310.0 if not row["emulated"] else 9200.0
    return {
        "n": N,
        "p50_us": base,
        "p90_us": base * 1.2,
        "p99_us": base * 1.9,
        "emulated": row["emulated"],
        "timing_valid": row["device"] != "rpi4#1",
    }


def _trace(row: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    points = 120
    times = [i * 0.5 for i in range(points)]
    heat: list[float | None] = [
        45 + 20 * (1 - math.exp(-t / 20)) + rng.uniform(-0.3, 0.3) for t in times
    ]
    if row["device"] == "rpi4#1":
        heat[40:55] = [None] * 15
    readable = row["device"] != "host"
    clock = [1_500_000.0 if t < 45 or row["device"] != "rpi4#1" else 1_000_000.0 for t in times]
    base = _latency(row)["p50_us"]
    return {
        "row": row["id"],
        "attempt": row["attempts"][0],
        "t_s": times,
        "temp_c": {
            "cpu-thermal": heat if readable else [None] * points,
            **({"gpu-thermal": [v and v - 4 for v in heat]} if row["device"] == "rpi5#1" else {}),
        },
        "freq_khz": {f"cpu{i}": clock for i in range(4)},
        "latency_us": [
            base * rng.uniform(0.95, 1.1) * (1.8 if rng.random() < 0.02 else 1) for _ in range(N)
        ],
    }


def _sha256(runtime: str) -> str:
    return hashlib.sha256(runtime.encode()).hexdigest()


def _environments(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {
        _sha256(runtime): {
            "runtime": runtime,
            "version": "1.31.1" if runtime == "onnxruntime" else "2.3.0",
            "os": "Debian GNU/Linux 12",
            "cpu": {"model": "Cortex-A72", "flags": ["neon", "asimd"]},
            "unreadable": None,
        }
        for runtime in sorted({row["runtime"] for row in rows})
    }


def _attempts(row: dict[str, Any], rng: random.Random) -> list[dict[str, Any]]:
    started = CREATED + rng.uniform(1, 60)
    done = [
        {
            "id": id,
            "cell": f"{row['model']}.{row['file']}/clean/{row['runtime']}@{row['device']}",
            "device": row["device"],
            "outcome": "ok",
            "error": None,
            "number": 1,
            "started_unix": started,
            "ended_unix": started + rng.uniform(0.4, 9),
            "environment": _sha256(row["runtime"]),
        }
        for id in row["attempts"]
    ]
    if row["device"] == "rpi4#1" and row["file"] == "qdq-u8u8":
        lost = {
            **done[0],
            "id": f"{done[0]['id']}-lost",
            "outcome": "infra_error",
            "error": "rpi4#1: link lost after 12 s [E-LINK]",
        }
        return [lost, {**done[0], "number": 2}]
    return done
