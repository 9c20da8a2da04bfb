"""What goes to a hub: plain data."""

from __future__ import annotations

from dataclasses import dataclass, field

from device_worker import wire
from device_worker.fence import NO_STORE, Claim
from orchestrator.devices.bundle import BundleFile
from orchestrator.devices.identity import ANYBODY, Identity
from orchestrator.devices.session import Limits
from orchestrator.results.check import Asked, Declared
from orchestrator.transports.settings import TransportSettings


@dataclass(frozen=True)
class Target:
    """One unit, the lease under which it is driven, and what it must show to be that unit.

    ``cache_limit``, ``claim``: as of DeviceSession.
    """

    device: str
    device_class: str
    transport: TransportSettings
    owner: str
    token: int
    cache_limit: int | None = None
    identity: Identity = ANYBODY
    claim: Claim = NO_STORE


@dataclass(frozen=True)
class Order:
    """One attempt. ``blobs``: sha256 -> path of the file in a store the hub can read.

    ``python`` is the interpreter on the device, None when the inventory names none for the runtime.
    ``own_python``: the inventory names it for this runtime alone, so where it does not exist the
    runtime is not installed and nothing is wrong with the device. ``unavailable``: why the
    inventory already says that it cannot be run there, which is the error ``unavailable_id``.
    ``bundle``: the hermetic Python to bring (``python`` is then ignored). ``reset``: a command of
    the hub that power-cycles the accelerator's port. ``outputs``: of the model, () where they are
    not known.
    """

    target: Target
    job: wire.Job
    python: str | None
    blobs: dict[str, str]
    limits: Limits = field(default_factory=Limits)
    env: dict[str, str] = field(default_factory=dict)
    max_start_c: float | None = None
    min_battery: float | None = None
    settle_s: float = 0.0
    own_python: bool = False
    unavailable: str | None = None
    unavailable_id: str = "E-RUNTIME-MISSING"
    bundle: BundleFile | None = None
    reset: tuple[str, ...] = ()
    outputs: tuple[Declared, ...] = ()

    @property
    def asked(self) -> Asked:
        """What its answer is held to."""
        return Asked(self.job, self.target.device, self.target.token, self.outputs)

    @property
    def files(self) -> dict[str, str]:
        """All that the hub must be able to read, as ``blobs``."""
        own = self.bundle
        return self.blobs if own is None else {**self.blobs, own.sha256: own.path}
