"""How a device is reached: strict settings as they stand in the inventory file.

No transport is imported here, so reading an inventory stays fast.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


Folder = Annotated[str, StringConstraints(min_length=1, pattern=r"^[^\x00]+$")]

Host = Annotated[str, StringConstraints(pattern=r"^[^\s\x00-]\S*$")]
"""No leading dash: a host name ends up on the command line of ``ssh -W`` and ProxyCommand."""


_HOP = (
    r"([^\s\x00@,:-][^\s\x00@,:]*@)?([^\s\x00@,:\[-][^\s\x00@,:]*|\[[^\s\x00@,\]]+\])(:[0-9]{1,5})?"
)
Jump = Annotated[str, StringConstraints(pattern=rf"^{_HOP}(,{_HOP})*$")]
"""Gateways; an IPv6 address stands in brackets."""


class LocalSettings(_Strict):
    """This machine, as a device of its own."""

    type: Literal["local"] = "local"
    root: Folder = "~/.cache/assay/device/local"


class SshSettings(_Strict):
    """A device behind sshd. ``None`` means: from ``~/.ssh/config``, else OpenSSH's default.

    ``root`` is absolute or relative to the remote home. Times are in seconds. ``jump``: gateways
    on the way, ``[user@]host[:port]``, nearest first, with commas between; key, known_hosts,
    config and agent are theirs too. Without it ``~/.ssh/config`` may name one.
    """

    type: Literal["ssh"] = "ssh"
    host: Host
    jump: Jump | None = None
    port: Annotated[int, Field(ge=1, le=65535)] | None = None
    user: Annotated[str, StringConstraints(pattern=r"^[^\s\x00-]\S*$")] | None = None
    key: str | None = None
    known_hosts: str | None = None
    config: bool = True
    agent: bool = True
    root: Folder = ".cache/assay/device"
    connect_timeout: Annotated[float, Field(gt=0)] = 20.0
    keepalive: Annotated[float, Field(gt=0)] = 5.0


class AdbSettings(_Strict):
    """An Android device behind adb. ``serial`` as ``adb devices`` names it, or ``host:port``.

    ``usb`` (such as ``usb:1-2.3``) and ``fingerprint`` (ro.build.fingerprint) are what the unit
    must also be found to have. ``adb``: the client; its server runs on a port of our own, so that
    nobody else's is ever killed. Times are in seconds.
    """

    type: Literal["adb"] = "adb"
    serial: Annotated[str, StringConstraints(pattern=r"^[^\s\x00-]\S*$")]
    usb: Annotated[str, StringConstraints(pattern=r"^usb:\S+$")] | None = None
    fingerprint: str | None = None
    adb: str = "adb"
    server_port: Annotated[int, Field(ge=1, le=65535)] = 5137
    root: Folder = "/data/local/tmp/assay"
    connect_timeout: Annotated[float, Field(gt=0)] = 20.0


FaultKind = Literal["drop", "stall", "corrupt", "slow", "disk_full", "garbage", "huge_line"]
FaultPoint = Literal["run", "start", "push", "pull", "read"]

_POINTS: dict[FaultKind, frozenset[FaultPoint]] = {
    "drop": frozenset({"run", "start", "push", "pull", "read"}),
    "stall": frozenset({"run", "start", "push", "pull", "read"}),
    "slow": frozenset({"run", "start", "push", "pull", "read"}),
    "corrupt": frozenset({"run", "push", "pull", "read"}),
    "disk_full": frozenset({"push"}),
    "garbage": frozenset({"run", "read"}),
    "huge_line": frozenset({"read"}),
}


class Fault(_Strict):
    """One scripted failure: calls (for ``read``: lines) ``after + 1 … after + times`` meet it.

    ``times`` None: for ever. ``seconds``: length of a ``stall`` (None: for ever) or ``slow``
    (None: 0.1). Calls are counted per device root, across connections and processes, so that a
    retry on a new connection meets the next call of the script, not the first again.
    """

    kind: FaultKind
    on: FaultPoint
    after: Annotated[int, Field(ge=0)] = 0
    times: Annotated[int, Field(ge=1)] | None = 1
    seconds: Annotated[float, Field(ge=0)] | None = None

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.on not in _POINTS[self.kind]:
            can = ", ".join(sorted(_POINTS[self.kind]))
            raise ValueError(f"a {self.kind} fault cannot happen on {self.on} (only on: {can})")
        return self


class FakeSettings(_Strict):
    """A device whose processes really run here, with scripted faults in between."""

    type: Literal["fake"] = "fake"
    root: Folder
    faults: list[Fault] = Field(default_factory=list)


TransportSettings = Annotated[
    LocalSettings | SshSettings | AdbSettings | FakeSettings, Field(discriminator="type")
]
