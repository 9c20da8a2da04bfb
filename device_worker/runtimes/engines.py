"""Engines that a provider compiles for one device: where they are kept, which there are.

Two builds of one model on one device differ, and may answer differently: each file is hashed, and
an attempt records the ones it used. The time of a build is told apart from that of a load.
"""

from __future__ import annotations

import glob
import hashlib
import os
from typing import Dict, List

from device_worker.cache import sha256_file

TENSORRT = "TensorrtExecutionProvider"
BUILDERS = (TENSORRT,)
_ENGINE = ".engine"
_KEPT = (_ENGINE, ".profile", ".timing")
_LIBRARIES = "/usr/lib/*/libnvinfer.so.*"


def folder(model: str, provider: str, options: Dict[str, str], version: str) -> str:
    """Where the engines of the cached file ``model`` go: beside the cache, never shared.

    An engine is good for the library, its version and the options it was built with; the provider
    notices only some of the differences.
    """
    cache = os.path.dirname(os.path.dirname(model))
    root = os.path.dirname(cache) if os.path.basename(cache) == "cache" else os.path.dirname(model)
    libraries = sorted({os.path.basename(os.path.realpath(p)) for p in glob.glob(_LIBRARIES)})
    made_with = repr((provider, sorted(options.items()), version, libraries))
    key = hashlib.sha256(made_with.encode()).hexdigest()[:12]
    return os.path.join(root, "engines", "%s-%s" % (os.path.basename(model)[:16], key))


def defaults(options: Dict[str, str], where: str) -> Dict[str, str]:
    """TensorRT's options for a quantised model; what was asked for goes first."""
    return {
        "trt_int8_enable": "True",
        "trt_engine_cache_enable": "True",
        "trt_engine_cache_path": where,
        **options,
    }


def hashes(where: str) -> Dict[str, str]:
    """File name -> sha256 of every engine and what belongs to it; empty where there is no folder.

    Raises OSError.
    """
    found: Dict[str, str] = {}
    for path in sorted(_files(where)):
        found[os.path.relpath(path, where)] = sha256_file(path)
    return found


def built(before: Dict[str, str], after: Dict[str, str]) -> bool:
    """Whether an engine was made between two looks; profiles and timings alone are none."""
    return any(
        name.endswith(_ENGINE) and before.get(name) != sha256 for name, sha256 in after.items()
    )


def _files(where: str) -> List[str]:
    return [
        os.path.join(below, name)
        for below, _, names in os.walk(where)
        for name in names
        if name.endswith(_KEPT)
    ]
