"""TFLite delegates: found, hashed, tried in a child first, loaded, and their failures named.

Importing this module imports no runtime: ``module`` is always the interpreter module of the package
that is to take the delegate.
"""

from __future__ import annotations

import ctypes
import os
import re
import sysconfig
from dataclasses import dataclass
from typing import Any, Callable, Dict, List, Optional

from device_worker.cache import sha256_file
from device_worker.errors import WorkerError, one_line, storage
from device_worker.runtimes.probe import HANG, trial
from device_worker.wire import Delegate

EDGETPU_OP = "edgetpu-custom-op"
PATIENCE = 60.0
"""Seconds to load, take a model and run it once; firmware is brought to a USB unit meanwhile."""

_NODE = re.compile(r"Node number \d+ \(([^)]*)\) failed to")
_MACHINES = {3: "i386", 40: "arm", 62: "x86_64", 183: "aarch64", 243: "riscv"}
_NEEDED = "unresolved custom op: " + EDGETPU_OP


@dataclass(frozen=True)
class Library:
    """A delegate's library on this device. ``path`` is what is loaded, ``sha256`` its hash."""

    name: str
    path: str
    sha256: str


def checked(spec: Delegate) -> Library:
    """Find and hash the library.

    Raises WorkerError not_available E-DELEGATE-LIBRARY when it is not there, infra_error
    E-DELEGATE-HASH when it is another than the inventory pins.
    """
    path = located(spec.library)
    if path is None:
        raise WorkerError(
            "not_available",
            "E-DELEGATE-LIBRARY",
            "no library %s on the device" % spec.library,
            "install it, or give its path in the inventory",
        )
    with storage("hashing the delegate's library"):
        found = sha256_file(path)
    if spec.sha256 not in (None, found):
        raise WorkerError(
            "infra_error",
            "E-DELEGATE-HASH",
            "%s has sha256 %s, the inventory says %s" % (path, found[:12], str(spec.sha256)[:12]),
            "restore the library, or accept it in the inventory by its sha256",
        )
    return Library(spec.name, os.path.realpath(path), found)


def located(library: str) -> Optional[str]:
    """The file that ``library`` names (a path, ``~`` allowed, or a soname), None without one."""
    if "/" in library:
        path = os.path.expanduser(library)
        return path if os.path.isfile(path) else None
    arch = sysconfig.get_config_var("MULTIARCH") or ""
    plain = ("/usr/local/lib", "/usr/lib", "/lib")
    folders = [
        *os.environ.get("LD_LIBRARY_PATH", "").split(":"),
        *(os.path.join(folder, arch) for folder in plain),
        *plain,
        *("/usr/lib64", "/lib64"),
    ]
    paths = (os.path.join(folder, library) for folder in folders if folder)
    return next((path for path in paths if os.path.isfile(path)), None)


def prove(library: Library, attempt: Callable[[], None], patience: float = PATIENCE) -> None:
    """Run ``attempt`` (load, take the model, infer once) in a child: it may crash, or never return.

    What it raises is not seen here; it happens again in this process. Raises WorkerError
    not_available E-DELEGATE-CRASH, infra_error E-ACCELERATOR.
    """
    end = trial(attempt, patience)
    if end == HANG:
        raise lost("%s did not answer within %g s" % (library.name, patience))
    if end is not None:
        raise WorkerError(
            "not_available",
            "E-DELEGATE-CRASH",
            "%s (%s) crashes the runtime (%s)" % (library.name, library.path, end),
            "install a build of it that was made for this runtime",
        )


def load(module: Any, library: Library, options: Dict[str, str]) -> Any:
    """What ``experimental_delegates`` takes. Keep it for as long as the interpreter lives.

    Raises WorkerError not_available E-DELEGATE-LIBRARY (cannot be loaded here), E-DELEGATE-DEVICE
    (it finds no accelerator, or refuses its options).
    """
    try:
        return module.load_delegate(library.path, dict(options))
    except (OSError, AttributeError) as error:
        # AttributeError: a library, but no delegate: the plug-in's symbols are missing.
        raise WorkerError(
            "not_available",
            "E-DELEGATE-LIBRARY",
            "%s cannot be loaded: %s" % (library.name, _reason(str(error), library.path)),
            "install a build of it for this machine (%s)" % os.uname().machine,
        ) from error
    except (ValueError, RuntimeError) as error:
        # libedgetpu returns nothing and says nothing when no unit answers.
        words = " ".join(str(error).splitlines()[1:]).strip()
        where = options.get("device", "")
        unit = "no accelerator answers" + (" at %r" % where if where else "")
        raise WorkerError(
            "not_available",
            "E-DELEGATE-DEVICE",
            "%s: %s" % (library.name, words or unit),
            "check the cable, its power and the permissions of its device node",
        ) from error


def facts(library: Library, options: Dict[str, str]) -> Dict[str, Any]:
    """What an environment records of a loaded delegate; ``standin``: the class it stands in for."""
    handle = ctypes.CDLL(library.path)  # loaded already: the same handle once more
    return {
        "name": library.name,
        "library": library.path,
        "sha256": library.sha256,
        "options": dict(options),
        "version": _version(handle),
        "standin": _standin(handle),
    }


def refused_load(text: str, delegate: Optional[str]) -> Optional[WorkerError]:
    """Why a model was not taken, where that is about a delegate; None: ask the model."""
    if delegate is None:
        if _NEEDED not in text:
            return None
        return WorkerError(
            "not_available",
            "E-DELEGATE-NEEDED",
            "compiled for the Edge TPU: runs only with its delegate",
            "name the delegate in the runtime configuration, or run the file it was compiled from",
        )
    if not (_theirs(text) or _NEEDED in text):
        return None
    return WorkerError(
        "not_available",
        "E-DELEGATE-APPLY",
        "%s does not take the model: %s" % (delegate, one_line(text)),
        "compile the model for this version of the delegate, or install the one it needs",
    )


def failed_run(text: str, delegate: Optional[str]) -> Optional[WorkerError]:
    """E-ACCELERATOR where an inference failed in the delegate or nobody says where; else None."""
    if delegate is None or (_NODE.search(text) and not _theirs(text)):
        return None
    return lost("%s failed: %s" % (delegate, one_line(text)))


def lost(what: str) -> WorkerError:
    return WorkerError(
        "infra_error", "E-ACCELERATOR", what, "check the accelerator's cable and power"
    )


def split(taken: List[str], default_kernels: bool) -> int:
    """How many of the operators that delegates took (kinds) were the named delegate's.

    All delegates call their nodes DELEGATE. XNNPACK takes no custom operator, and nothing at all
    unless the default kernels are used; any built-in operator is put down to it if they are.
    """
    return sum(1 for kind in taken if not (default_kernels and kind.isupper()))


def _theirs(text: str) -> bool:
    """Whether the runtime names a node of a delegate other than its own as the one that failed."""
    names = [name.lower() for name in _NODE.findall(text)]
    return any("delegate" in name and "xnnpack" not in name for name in names)


def _reason(text: str, path: str) -> str:
    """The loader's words; it calls a library for another machine missing, so that is added."""
    told = one_line(text).replace(path + ": ", "", 1)
    theirs, ours = built_for(path), built_for("/proc/self/exe")
    if theirs is None or ours in (None, theirs):
        return told
    return "%s; it is built for %s, this process for %s" % (told, theirs, ours)


def built_for(path: str) -> Optional[str]:
    """The machine that an ELF file is for, None for anything else."""
    try:
        with open(path, "rb") as file:
            head = file.read(20)
    except OSError:
        return None
    if len(head) < 20 or head[:4] != b"\x7fELF":
        return None
    number = int.from_bytes(head[18:20], "little" if head[5] == 1 else "big")
    return "%s (%d bit)" % (_MACHINES.get(number, "machine %d" % number), 32 * head[4])


def _version(handle: Any) -> Optional[str]:
    """libedgetpu's own description of itself."""
    ask = getattr(handle, "edgetpu_version", None)
    if ask is None:
        return None
    ask.argtypes, ask.restype = [], ctypes.c_char_p
    text = ask()
    return text.decode("utf-8", "replace") if text else None


def _standin(handle: Any) -> Optional[str]:
    """The only class a stand-in may be listed under, as it says itself; None for the real thing."""
    try:
        mark = (ctypes.c_char * 64).in_dll(handle, "assay_standin")
    except ValueError:
        return None
    return mark.value.decode("ascii", "replace")
