"""What a build leaves beside its models: the tools it used, and the sum of every file."""

from __future__ import annotations

import hashlib
import json
import platform
import zlib
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Final

TOOLS: Final = (
    "tensorflow-cpu",
    "keras",
    "onnx",
    "onnxruntime",
    "ai-edge-litert",
    "numpy",
    "scikit-learn",
    "scipy",
)


def cpu_name() -> str:
    """The CPU's own name for itself, where Linux tells."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def write_json(path: Path, value: Mapping[str, object]) -> None:
    """JSON with one line per key: long lists of numbers stay readable and diffable."""
    lines = [f"  {json.dumps(k)}: {json.dumps(v, sort_keys=True)}" for k, v in value.items()]
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n")


def write_build(out: Path, parameters: Mapping[str, int], fp32_gap: Mapping[str, float]) -> None:
    """BUILD.json: the tools and the CPU that built, and by net its size and largest FP32 gap."""
    write_json(
        out / "BUILD.json",
        {
            "python": platform.python_version(),
            "zlib": zlib.ZLIB_RUNTIME_VERSION,
            "cpu": cpu_name(),
            "tools": {name: version(name) for name in TOOLS},
            "parameters": parameters,
            "fp32_largest_difference": fp32_gap,
        },
    )


def write_sums(out: Path) -> None:
    """SHA256SUMS over everything the build wrote, in the format `sha256sum -c` reads."""
    names = sorted(
        path.relative_to(out).as_posix()
        for pattern in ("models/*", "*.npz", "SPLIT.json", "BUILD.json")
        for path in out.glob(pattern)
    )
    lines = [f"{hashlib.sha256((out / name).read_bytes()).hexdigest()}  {name}\n" for name in names]
    (out / "SHA256SUMS").write_text("".join(lines))
