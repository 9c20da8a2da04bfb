"""What an arithmetic belongs to: runtime version, runtime build, core. Pure.

This is the one place that says whether a fingerprint speaks for an answer: where the keys of both
are equal.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict

_CORE = (
    *("CPU implementer", "CPU architecture", "CPU variant", "CPU part", "CPU revision"),
    *("vendor_id", "cpu family", "model", "stepping"),
)


class Key(BaseModel):
    """What an answer was computed with.

    ``build``: digest of the runtime's native libraries. ``core``: machine, kinds of cores and
    digest of the ISA flags. None is unknown, which equals nothing but another unknown.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: str | None = None
    build: str | None = None
    core: str | None = None

    def unlike(self, other: Key) -> str | None:
        """What is not as in ``other``, in words; None where both are equal."""
        if self.version != other.version:
            return f"runtime {_text(self.version)}, not {_text(other.version)}"
        if self.build != other.build:
            builds = f"{_text(self.build)[:8]}, not {_text(other.build)[:8]}"
            return f"another build of runtime {_text(self.version)} ({builds})"
        if self.core != other.core:
            return f"another core ({_text(self.core)}, not {_text(other.core)})"
        return None


UNKNOWN = Key()


def stale(unit: str, seen: Key, taken: Key) -> str | None:
    """Why a fingerprint ``taken`` of a unit does not speak for what was ``seen``, and the fix.

    None where it does.
    """
    unlike = seen.unlike(taken)
    if unlike is None:
        return None
    return f"the fingerprint of {unit} is stale: {unlike} (fix: assay fingerprint {unit})"


def key_of(environment: Mapping[str, Any]) -> Key:
    """``environment``: as `device_worker.environment.describe` gave it, {} where none was kept."""
    used = environment.get("runtime") or {}
    return Key(version=_version(used), build=used.get("native_sha256"), core=_core(environment))


def _core(environment: Mapping[str, Any]) -> str | None:
    if not environment.get("machine") or not environment.get("isa_flags"):
        return None
    kinds = {
        "/".join(core[name] for name in _CORE if name in core)
        for core in environment.get("cores") or ()
    }
    flags = hashlib.sha256(" ".join(sorted(environment["isa_flags"])).encode()).hexdigest()[:8]
    return " ".join([environment["machine"], *sorted(filter(None, kinds)), f"isa {flags}"])


def _version(used: Mapping[str, Any]) -> str | None:
    if not used.get("version"):
        return None
    # onnxruntime-gpu 1.31 is not onnxruntime 1.31.
    usual = {"onnxruntime", "ai-edge-litert", "tflite-runtime", None}
    other = used.get("distribution")
    return str(used["version"]) if other in usual else f"{other} {used['version']}"


def _text(value: str | None) -> str:
    return value or "unknown"
