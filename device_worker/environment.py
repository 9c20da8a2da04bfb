"""What could make two devices disagree: hardware, system, libraries.

Nothing volatile, so that equal environments have equal JSON. Unknown is None.
"""

from __future__ import annotations

import functools
import glob
import hashlib
import importlib.metadata
import json
import os
import platform
import sys
from typing import Any, Dict, List, Optional

from device_worker.telemetry.parsers.linux import os_release_fields
from device_worker.telemetry.sensors import look, read_text
from device_worker.wire import RuntimeSpec, Source

DISTRIBUTIONS = {
    "onnxruntime": ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino"),
    "litert": ("ai-edge-litert",),
    "tflite-runtime": ("tflite-runtime",),
}
_CORE_FIELDS = (
    *("CPU implementer", "CPU architecture", "CPU variant", "CPU part", "CPU revision"),
    *("vendor_id", "cpu family", "model", "model name", "stepping", "microcode"),
)
_GETPROP = Source("getprop", command=["getprop"], timeout_s=10.0)


def describe(
    spec: Optional[RuntimeSpec] = None,
    version: Optional[Dict[str, Any]] = None,
    root: str = "/",
) -> Dict[str, Any]:
    """JSON data about this device; with ``spec`` and ``version`` also the runtime in use.

    ``root`` is where /proc, /sys and /etc are looked for. Imports no runtime. ``fingerprint`` (of
    the build) and ``soc`` are Android's: there only where a program ``getprop`` is.
    """
    facts = dict(_lasting(root))
    facts["governors"] = governors(root)
    facts["ort_disable_telemetry"] = os.environ.get("ORT_DISABLE_TELEMETRY")
    if spec is not None:
        told = {key: value for key, value in (version or {}).items() if value is not None}
        facts["threads"] = spec.threads
        facts["delegate"] = told.pop("delegate", None)
        facts["runtime"] = {
            "name": spec.runtime,
            **facts["runtimes"].get(spec.runtime, {}),
            **told,
        }
    return facts


@functools.lru_cache(maxsize=4)
def _lasting(root: str) -> Dict[str, Any]:
    cpu = parse_cpuinfo(read_text(os.path.join(root, "proc/cpuinfo")) or "")
    release = os_release_fields(read_text(os.path.join(root, "etc/os-release")) or "")
    runtimes = {name: _installed(names) for name, names in DISTRIBUTIONS.items()}
    android = look(_GETPROP)
    return {
        "machine": platform.machine(),
        "kernel": platform.release(),
        "os": android.get("os") or release.get("PRETTY_NAME"),
        "libc": _libc(),
        "python": platform.python_version(),
        "python_bits": 64 if sys.maxsize > 1 << 32 else 32,
        "numpy": _version("numpy"),
        "hardware": android.get("hardware") or _device_tree(root),
        **{name: android[name] for name in ("fingerprint", "soc") if name in android},
        "isa_flags": cpu["flags"],
        "cores": cpu["cores"],
        "runtimes": {name: found for name, found in runtimes.items() if found is not None},
        "board": _board(root),
    }


def parse_cpuinfo(text: str) -> Dict[str, Any]:
    """``flags``: sorted instruction-set flags that all cores share; ``cores``: identity of each."""
    flags: Optional[set[str]] = None
    cores: List[Dict[str, str]] = []
    for block in text.split("\n\n"):
        pairs = (line.partition(":") for line in block.splitlines())
        fields = {name.strip(): value.strip() for name, _, value in pairs}
        if "processor" not in fields:
            continue
        found = set((fields.get("flags") or fields.get("Features") or "").split())
        flags = found if flags is None else flags & found
        cores.append({name: fields[name] for name in _CORE_FIELDS if name in fields})
    return {"flags": sorted(flags or ()), "cores": cores}


def governors(root: str) -> Optional[List[str]]:
    """The distinct cpufreq governors, None when none can be read."""
    pattern = os.path.join(root, "sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_governor")
    texts = (read_text(path) for path in glob.glob(pattern))
    return sorted({text.strip() for text in texts if text}) or None


def _device_tree(root: str) -> Optional[str]:
    for place in ("proc/device-tree/model", "sys/firmware/devicetree/base/model"):
        text = read_text(os.path.join(root, place))
        if text:
            return text.rstrip("\0\n")
    return None


def _board(root: str) -> Any:
    """/etc/assay-board.json, which bring-up writes; a damaged one is said to be so."""
    text = read_text(os.path.join(root, "etc/assay-board.json"))
    if text is None:
        return None
    try:
        return json.loads(text)
    except ValueError as error:
        return {"error": "assay-board.json is no JSON: %s" % error}


def _libc() -> Optional[str]:
    try:
        return os.confstr("CS_GNU_LIBC_VERSION")
    except (ValueError, OSError):  # musl and bionic have no such name
        return None


def _version(distribution: str) -> Optional[str]:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _installed(names: Any) -> Optional[Dict[str, Any]]:
    """Version, wheel tags and a hash over the native libraries as the wheel's RECORD states them.

    The hash tells two builds of one version apart without reading 100 MB of libraries.
    """
    for name in names:
        try:
            found = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        record = (found.read_text("RECORD") or "").splitlines()
        native = sorted(line for line in record if ".so" in line.split(",")[0])
        wheel = (found.read_text("WHEEL") or "").splitlines()
        return {
            "distribution": name,
            "version": found.version,
            "wheel_tags": sorted(line[5:] for line in wheel if line.startswith("Tag: ")),
            "native_sha256": hashlib.sha256("\n".join(native).encode()).hexdigest()
            if native
            else None,
        }
    return None
