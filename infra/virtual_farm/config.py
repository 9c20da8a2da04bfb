"""The definitions of boards and phones (boards.yaml) and the folders of the farm."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).resolve().parent
BOARDS_FILE = HERE / "boards.yaml"
ARCHITECTURES = ("arm64", "armhf", "amd64")
BOARD_KEYS = {
    "model", "arch", "address", "qemu", "ncpu", "cpuinfo", "frequencies_khz", "thermal",
    "environment",
}  # fmt: skip
PHONE_KEYS = BOARD_KEYS - {"environment"} | {"data_mb", "battery", "properties"}
# Sections of boards.yaml; `up boards` means all units of one.
BOARDS, PHONES = "boards", "phones"


class FarmError(Exception):
    """Something the user can act on; printed as one line, never as a traceback."""


class UsageError(FarmError):
    """The command line asks for something that does not exist."""


@dataclass(frozen=True)
class ThermalSpec:
    """Parameters of the first-order thermal model, degrees Celsius and seconds."""

    ambient_c: float
    idle_rise_c: float
    core_rise_c: float
    tau_s: float
    trip_c: float
    critical_c: float
    hysteresis_c: float


@dataclass(frozen=True)
class QemuPackage:
    """Where a version of QEMU comes from: a Debian suite's package of static programs."""

    version: str
    suite: str
    package: str


@dataclass(frozen=True)
class PhoneSpec:
    """What a phone has and a board has not.

    ``data_mb``: size of /data, MiB. ``battery``: percent of charge it shows. ``properties``: what
    getprop prints.
    """

    data_mb: int
    battery: int
    properties: Mapping[str, str]


@dataclass(frozen=True)
class Board:
    """One virtual board or phone; its name is its device class.

    ``suite``: the Debian release that its system is made of. A phone is one that has ``phone``;
    it is reached over adb, a board over ssh.
    """

    name: str
    model: str
    arch: str
    suite: str
    address: str
    port: int
    qemu_version: str
    cpu: str
    without: tuple[str, ...]
    ncpu: int
    cpuinfo: Mapping[str, Any]
    frequencies_khz: tuple[int, ...]
    thermal: ThermalSpec
    environment: Mapping[str, str]
    phone: PhoneSpec | None = None

    @property
    def qemu_cpu(self) -> str:
        """What QEMU's option -cpu gets."""
        return ",".join([self.cpu, *(f"-{feature}" for feature in self.without)])


@dataclass(frozen=True)
class Definitions:
    """Everything boards.yaml says: all units by name, boards first; each QEMU by version."""

    boards: Mapping[str, Board]
    qemus: Mapping[str, QemuPackage]

    def select(self, names: list[str]) -> list[Board]:
        """Return the named units (``boards`` and ``phones`` are all of a kind), or all of them."""
        groups = {
            BOARDS: [name for name, board in self.boards.items() if not board.phone],
            PHONES: [name for name, board in self.boards.items() if board.phone],
        }
        wanted = [member for name in names for member in groups.get(name, [name])]
        unknown = [name for name in wanted if name not in self.boards]
        if unknown:
            known = ", ".join(self.boards)
            raise UsageError(f"no such board: {', '.join(unknown)} (known: {known})")
        return [self.boards[name] for name in dict.fromkeys(wanted if names else self.boards)]


def parse_board(name: str, port: int, suite: str, raw: Mapping[str, Any]) -> Board:
    """Turn one entry of boards.yaml into a board; raise FarmError when it is not one."""
    return _parse(name, port, suite, raw, is_phone=False)


def parse_phone(name: str, port: int, suite: str, raw: Mapping[str, Any]) -> Board:
    """Turn one entry of boards.yaml into a phone; raise FarmError when it is not one."""
    return _parse(name, port, suite, raw, is_phone=True)


def _parse(name: str, port: int, suite: str, raw: Mapping[str, Any], *, is_phone: bool) -> Board:
    try:
        if unknown := set(raw) - (PHONE_KEYS if is_phone else BOARD_KEYS):
            raise ValueError(f"unknown key {', '.join(sorted(unknown))}")
        allowed = ("arm64",) if is_phone else ARCHITECTURES
        if raw["arch"] not in allowed:
            raise ValueError(f"arch must be one of {', '.join(allowed)}")
        if not ipaddress.ip_address(raw["address"]).is_loopback:
            raise ValueError("address must be a loopback address")
        qemu = dict(raw["qemu"])
        return Board(
            name=name,
            model=str(raw["model"]),
            arch=raw["arch"],
            suite=suite,
            address=raw["address"],
            port=port,
            qemu_version=str(qemu.pop("version")),
            cpu=str(qemu.pop("cpu")),
            without=tuple(qemu.pop("without", ())),
            ncpu=int(raw["ncpu"]),
            cpuinfo=dict(raw["cpuinfo"]),
            frequencies_khz=tuple(sorted(int(f) for f in raw["frequencies_khz"])),
            thermal=ThermalSpec(**{k: float(v) for k, v in raw["thermal"].items()}),
            environment={k: str(v) for k, v in (raw.get("environment") or {}).items()},
            phone=PhoneSpec(
                data_mb=int(raw["data_mb"]),
                battery=int(raw["battery"]),
                properties={k: str(v) for k, v in raw["properties"].items()},
            )
            if is_phone
            else None,
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        detail = f"missing {error}" if isinstance(error, KeyError) else str(error)
        kind = "phone" if is_phone else "board"
        raise FarmError(f"{BOARDS_FILE.name}: {kind} {name}: {detail}") from error


def load_definitions(path: Path = BOARDS_FILE) -> Definitions:
    """Read the definitions of all units."""
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
        suites = {key: str(raw["debian"][key]) for key in (BOARDS, PHONES)}
        ports = {key: int(raw["port"][key]) for key in (BOARDS, PHONES)}
        entries = {key: dict(raw[key]) for key in (BOARDS, PHONES)}
        qemus = {
            version: QemuPackage(version, str(source["debian"]), str(source["package"]))
            for version, source in raw["qemu"].items()
        }
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise FarmError(f"cannot read {path.name}: {str(error).splitlines()[0]}") from error
    boards: dict[str, Board] = {}
    for key, parse in ((BOARDS, parse_board), (PHONES, parse_phone)):
        for name, entry in entries[key].items():
            if name in boards or name in (BOARDS, PHONES):
                raise FarmError(f"{path.name}: {name}: the name is taken")
            boards[name] = parse(name, ports[key], suites[key], entry)
            if boards[name].qemu_version not in qemus:
                raise FarmError(f"{path.name}: {name}: no QEMU {boards[name].qemu_version}")
    if len({board.address for board in boards.values()}) != len(boards):
        raise FarmError(f"{path.name}: two boards have the same address")
    return Definitions(boards=boards, qemus=qemus)


@dataclass(frozen=True)
class Paths:
    """Where the farm keeps its things; nothing is written anywhere else."""

    root: Path

    @classmethod
    def from_environment(cls) -> Paths:
        """Use $ASSAY_FARM_DIR, or the user's cache."""
        chosen = os.environ.get("ASSAY_FARM_DIR") or "~/.cache/assay/farm"
        return cls(Path(chosen).expanduser().absolute())

    @property
    def key(self) -> Path:
        """Private key that every board accepts for root."""
        return self.root / "id_ed25519"

    @property
    def known_hosts(self) -> Path:
        """Host keys of all boards, in OpenSSH's format."""
        return self.root / "known_hosts"

    @property
    def lock(self) -> Path:
        """Held by the one command that changes the farm."""
        return self.root / "lock"

    @property
    def run(self) -> Path:
        """Run state of the boards that are up."""
        return self.root / "run"

    def host_key(self, name: str) -> Path:
        """Return the private host key of a board; it outlives the board."""
        return self.root / "host-keys" / name
