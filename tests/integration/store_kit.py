"""What the store's tests share: planned cells, finished records, worker processes."""

from __future__ import annotations

import io
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from orchestrator.queue.states import AttemptState, CellState
from orchestrator.store.database import Store
from orchestrator.store.owner import this_process
from orchestrator.store.records import AttemptRecord, Blob, CellSpec, Lease

OK = AttemptRecord(AttemptState.OK, codes_valid=True, timing_valid=True, started=1.0, ended=2.0)
INFRA = AttemptRecord(AttemptState.INFRA_ERROR, error_id="E-LINK", error="gone", retryable=True)


def cells(count: int, slots: Sequence[str] = ("pi",), units: Sequence[str] = ()) -> list[CellSpec]:
    """``count`` cells dealt out over ``slots``; without ``units`` a slot's unit has its name."""
    return [
        CellSpec(
            id=f"{slots[n % len(slots)]}-m{n}",
            slot=slots[n % len(slots)],
            candidates=units or [slots[n % len(slots)]],
            model=f"m{n}",
            file="int8",
            inputs="digits",
            condition="clean",
            runtime="ort",
            env_key="ort",
            position=n,
        )
        for n in range(count)
    ]


def add_devices(store: Store, *names: str) -> None:
    for name in names:
        store.upsert_device(name, "qemu-a72", True, {"serial": name})


def lease_of(store: Store, device: str) -> Lease:
    lease = store.acquire_lease(device, this_process())
    assert lease is not None
    return lease


def samples(store: Store, seed: int, count: int = 5) -> dict[str, Blob]:
    """Latency and telemetry artefacts as the device worker writes them."""
    stream = io.BytesIO()
    np.save(stream, np.arange(count, dtype=np.int64) * 1000 + seed)
    lines = [
        {
            "t_s": n / 2,
            "values": {
                "temp/cpu": 40.0 + seed,
                "temp/gpu": None,
                "freq/cpu0": 1_500_000,
                "flags/throttled": None,
                "mem/free": 1 << 31,
            },
        }
        for n in range(2)
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    return {
        "latency_ns": store.artefacts.put_bytes(stream.getvalue()),
        "telemetry": store.artefacts.put_bytes(text.encode()),
    }


def open_at(root: Path, moment: float) -> None:
    """Process body: open the store at ``moment``, as others do."""
    time.sleep(max(0.0, moment - time.time()))
    Store.open(root).close()


def work(root: Path, run: str, devices: Sequence[str], batch: int, pause: float) -> None:
    """Process body: take whatever device is free, do ``batch`` cells, give it back; till done."""
    with Store.open(root, busy_timeout=60) as store:
        owner = this_process()
        while store.run(run).cells[CellState.DONE] < len(store.cells(run)):
            for device in devices:
                lease = store.acquire_lease(device, owner)
                if lease is None:
                    continue
                for _ in range(batch):
                    claim = store.claim(run, lease)
                    if claim is None:
                        break
                    time.sleep(pause)
                    record = AttemptRecord(AttemptState.OK, result={"cell": claim.cell.id})
                    store.finish(claim.attempt, lease.token, record)
                store.release(lease)


def hold(root: Path, run: str, device: str, ready: Path) -> None:
    """Process body: finish one cell, claim another one, tell, and hang until killed."""
    store = Store.open(root)
    lease = lease_of(store, device)
    first = store.claim(run, lease)
    assert first is not None
    store.finish(first.attempt, lease.token, OK)
    second = store.claim(run, lease)
    assert second is not None
    part = ready.with_suffix(".part")
    part.write_text(json.dumps({"attempt": second.attempt, "token": lease.token}))
    part.replace(ready)
    while os.getppid() != 1:
        time.sleep(0.1)
