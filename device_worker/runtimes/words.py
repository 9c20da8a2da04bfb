"""ONNX Runtime's refusals with the cause first, and what helps: for people, never for blame."""

from __future__ import annotations

import re
from typing import Tuple

from device_worker.errors import one_line

_STATUS = re.compile(r"^\[ONNXRuntimeError\] : \d+ : [A-Z_]+ : ")
_LOADING = re.compile(r"^Load model from .*? failed:\s*")
_PLACE = re.compile(r"^(?:Exception during initialization: )?\S+\.(?:cc|h|hpp|cpp|cu):\d+ ")
_OPSET = re.compile(
    r"Opset (\d+) is under development.*Current official support for domain (\S+) is till"
    r" opset (\d+)",
    re.DOTALL,
)
_NEWER = "use a newer runtime, or convert the file for this one"
_FIXES = (
    ("Unsupported model IR version", _NEWER),
    ("is not a registered function/op", "the runtime has no such operator: " + _NEWER),
    ("Could not find an implementation", "the runtime has no such kernel: " + _NEWER),
    ("Protobuf parsing failed", "check that the file is whole"),
)


def explained(text: str) -> Tuple[str, str]:
    """The cause in one line, without source places and signatures, and a fix or ""."""
    for prefix in (_STATUS, _LOADING):
        text = prefix.sub("", text, count=1)
    placed = _PLACE.match(text)
    if placed:
        text = _after_signature(text[placed.end() :])
    opset = _OPSET.search(text)
    if opset:
        number, domain, known = opset.groups()
        return "opset %s of %s, but this runtime knows them up to %s" % (
            *(number, domain),
            known.rstrip("."),
        ), _NEWER
    line = one_line(text)
    return line, next((fix for mark, fix in _FIXES if mark in line), "")


def _after_signature(text: str) -> str:
    """What follows the C++ signature that ``text`` begins with; all of it where none ends."""
    depth, opened = 0, False
    for at, letter in enumerate(text):
        if letter == "(":
            depth, opened = depth + 1, True
        elif letter == ")":
            depth -= 1
        # Behind the arguments there is a space; behind "operator()" and "(anonymous)" is not.
        elif opened and depth == 0 and letter == " ":
            rest = re.sub(r"^(?:const|noexcept|\[with [^]]*\])\s+", "", text[at + 1 :])
            return rest or text
    return text
