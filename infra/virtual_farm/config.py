"""Board definitions (boards.yaml) and the folders of the farm."""

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
ARCHITECTURES = ("arm64", "amd64")
BOARD_KEYS = {
    "model", "arch", "address", "qemu", "ncpu", "cpuinfo", "frequencies_khz", "thermal",
    "environment",
}  # fmt: skip


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
class Board:
    """One virtual board; its name is its device class."""

    name: str
    model: str
    arch: str
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

    @property
    def qemu_cpu(self) -> str:
        """What QEMU's option -cpu gets."""
        return ",".join([self.cpu, *(f"-{feature}" for feature in self.without)])


@dataclass(frozen=True)
class Definitions:
    """Everything boards.yaml says."""

    debian: str
    boards: Mapping[str, Board]

    def select(self, names: list[str]) -> list[Board]:
        """Return the named boards, or all of them when no name is given."""
        unknown = [name for name in names if name not in self.boards]
        if unknown:
            known = ", ".join(self.boards)
            raise UsageError(f"no such board: {', '.join(unknown)} (known: {known})")
        return [self.boards[name] for name in names] if names else list(self.boards.values())


def parse_board(name: str, port: int, raw: Mapping[str, Any]) -> Board:
    """Turn one entry of boards.yaml into a board; raise FarmError when it is not one."""
    try:
        if unknown := set(raw) - BOARD_KEYS:
            raise ValueError(f"unknown key {', '.join(sorted(unknown))}")
        if raw["arch"] not in ARCHITECTURES:
            raise ValueError(f"arch must be one of {', '.join(ARCHITECTURES)}")
        if not ipaddress.ip_address(raw["address"]).is_loopback:
            raise ValueError("address must be a loopback address")
        qemu = dict(raw["qemu"])
        return Board(
            name=name,
            model=str(raw["model"]),
            arch=raw["arch"],
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
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        detail = f"missing {error}" if isinstance(error, KeyError) else str(error)
        raise FarmError(f"{BOARDS_FILE.name}: board {name}: {detail}") from error


def load_definitions(path: Path = BOARDS_FILE) -> Definitions:
    """Read the board definitions."""
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
        port, debian = int(raw["port"]), str(raw["debian"])
        entries = dict(raw["boards"])
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise FarmError(f"cannot read {path.name}: {str(error).splitlines()[0]}") from error
    boards = {name: parse_board(name, port, entry) for name, entry in entries.items()}
    if len({board.address for board in boards.values()}) != len(boards):
        raise FarmError(f"{path.name}: two boards have the same address")
    return Definitions(debian=debian, boards=boards)


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
