"""Leases of coordinators that are gone."""

from __future__ import annotations

import time
from collections.abc import Callable

from orchestrator.queue.expiry import LeaseWatch
from orchestrator.store.database import Store
from orchestrator.store.owner import owner_is_dead


def expire_dead(
    store: Store, watch: LeaseWatch, devices: set[str], say: Callable[[str], None]
) -> int:
    """Free the leases of dead coordinators, and return how many.

    At once where the process is known to be gone, else when its heartbeat counter stood still for
    LeaseWatch's patience.
    """
    freed = 0
    for lease in store.leases():
        if lease.device not in devices:
            continue
        gone = owner_is_dead(lease.owner)
        if gone or watch.observe(lease.device, lease.token, lease.counter, time.monotonic()):
            back = store.expire(lease)
            watch.forget(lease.device)
            if back is not None:
                say(f"{lease.device}: its coordinator is gone, {back} cell(s) wait again")
                freed += 1
    return freed
