"""A device of an inventory, leased for a question that is not a cell of a run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from orchestrator.coordinator.reservations import InUseError, Reservations
from orchestrator.devices.bundle import find_bundle
from orchestrator.devices.identity import expected
from orchestrator.devices.session import DeviceSession, Limits
from orchestrator.devices.worker import Worker
from orchestrator.errors import InfraError, NotAvailableError
from orchestrator.matrix.inventory import Device, bundle_name
from orchestrator.transports import open_transport

LIMITS = Limits(cell=600.0, silence=60.0)


@dataclass(frozen=True)
class Visit:
    device: Device
    session: DeviceSession

    def worker(self, runtime: str) -> Worker:
        """The warm worker under the Python that the inventory has for ``runtime``.

        Raises NotAvailableError E-RUNTIME-MISSING; what starting a worker raises.
        """
        python = self._python(runtime)
        name = bundle_name(python)
        return self.session.worker(python, self.device.env, find_bundle(name) if name else None)

    def fresh(self, runtime: str) -> Worker:
        """The same in a process that no other runtime has been in. Raises as `worker`.

        On ARM, XNNPACK leaves the process flushing denormals, whoever computes in it next.
        """
        self.session.retire(self._python(runtime))
        return self.worker(runtime)

    def _python(self, runtime: str) -> str:
        python = self.device.interpreter(runtime)
        if python is None:
            what = f"no Python for {runtime} in the inventory"
            raise NotAvailableError("E-RUNTIME-MISSING", what, where=self.device.name)
        return python


@contextmanager
def visit(device: Device, reservations: Reservations, limits: Limits = LIMITS) -> Iterator[Visit]:
    """The device under a lease of its own.

    Raises InfraError E-DEVICE-IN-USE, E-DEVICE-HUB for a device that only another hub reaches, and
    what entering a DeviceSession does.
    """
    if device.hub is not None:
        raise InfraError(
            "E-DEVICE-HUB",
            f"only its hub {device.hub} reaches it",
            where=device.name,
            fix="run this command on that host, with an inventory that names no hub",
            retryable=False,
        )
    try:
        with reservations.of(device) as grant:
            transport = open_transport(device.transport, device=device.name)
            with grant.session(
                transport,
                device=device.name,
                limits=limits,
                cache_limit=device.cache_limit,
                identity=expected(device),
            ) as session:
                yield Visit(device, session)
    except InUseError as error:
        raise InfraError("E-DEVICE-IN-USE", f"in use by {error}", where=device.name) from None
