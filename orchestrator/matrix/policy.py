"""What must hold before a device class may ship a model. Defaults: docs/guides/gates.md."""

from __future__ import annotations

import hashlib
import json
from fnmatch import fnmatchcase
from typing import Annotated

from pydantic import AfterValidator, Field

from orchestrator.matrix.fields import Spec, problem

GATES = ("G0", "G2", "G3", "G5", "G6", "G7")

Share = Annotated[float, Field(ge=0, lt=1)]


def _glob(value: str) -> str:
    if not value.strip():
        raise problem("E-MATRIX-TYPE", "a pattern is empty", fix="'*' fits everything")
    return value


Glob = Annotated[str, AfterValidator(_glob)]


class Candidate(Spec):
    """A row that may serve as the reference; patterns with ``*``, ``?`` and ``[..]``.

    ``files`` is matched against ``model.file`` or ``file``, ``device`` against the device's name
    or class, ``runtime`` against the runtime configuration's name. ``isa_any``: the device must
    report one of these instruction-set flags; empty asks for none.
    """

    files: Glob = "*"
    device: Glob
    runtime: Glob
    isa_any: tuple[str, ...] = Field(default=(), strict=False)

    def fits(self, model: str, file: str, device: str, device_class: str, runtime: str) -> bool:
        return (
            (fnmatchcase(f"{model}.{file}", self.files) or fnmatchcase(file, self.files))
            and (fnmatchcase(device, self.device) or fnmatchcase(device_class, self.device))
            and fnmatchcase(runtime, self.runtime)
        )


class Gate(Spec):
    enabled: bool = True


class Provenance(Gate):
    """G0: the backend that ran is the one that was planned; no fallback."""


class Repeatability(Gate):
    """G2: no differing byte in at least ``min_repeats`` passes over ``min_samples`` samples."""

    min_repeats: int = Field(default=100, ge=2)
    min_samples: int = Field(default=8, ge=1)


class Accuracy(Gate):
    """G3: INT8 accuracy divided by FP32 accuracy is at least ``min_ratio``."""

    min_ratio: float = Field(default=0.99, gt=0, le=1)


class Behaviour(Gate):
    """G5: share of samples decided differently than by the FP32 parent."""

    max_disagreement: Share = 0.05


class Reference(Gate):
    """G6: share of samples decided differently than by the reference row.

    ``min_near_tie``: share of those samples that must be near ties; None only reports it.
    """

    max_disagreement: Share = 0.005
    min_near_tie: Annotated[float, Field(gt=0, le=1)] | None = None


class Codes(Gate):
    """G7: share of samples whose largest code difference to the reference exceeds ``max_lsb``."""

    max_lsb: int = Field(default=2, ge=0)
    max_share: Share = 0.01


class Gates(Spec):
    G0: Provenance = Provenance()
    G2: Repeatability = Repeatability()
    G3: Accuracy = Accuracy()
    G5: Behaviour = Behaviour()
    G6: Reference = Reference()
    G7: Codes = Codes()


class Policy(Spec):
    """A sign-off policy file. ``reference``: the first candidate that ran wins, per model file.

    ``accept_covered_by_class``: a row that another of its equivalence class stands for has that
    one's verdict.
    """

    name: Annotated[str, Field(min_length=1)]
    description: str = ""
    accept_emulated: bool = False
    accept_covered_by_class: bool = False
    confidence: float = Field(default=0.95, gt=0.5, lt=1)
    reference: tuple[Candidate, ...] = Field(default=(), strict=False)
    gates: Gates = Gates()

    def sha256(self) -> str:
        """Of the content with its defaults filled in, so a comment changes nothing."""
        content = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(content.encode()).hexdigest()
