"""A first matrix, inventory and policy for a model and its inputs, as commented YAML. Pure.

What cannot be read off the files is guessed, and a comment beside the guess says so.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

Shape = tuple[int, ...]
"""Of one sample; -1 is dynamic."""

RUNTIMES = {"onnx": ("ort", "onnxruntime"), "tflite": ("lite", "litert")}
"""Format of a model file -> name and runtime of the row that runs it."""


@dataclass(frozen=True)
class Model:
    """A model file: its path as the matrix is to have it, format, and the shapes of a sample."""

    path: str
    format: str
    takes: Shape
    gives: Shape


@dataclass(frozen=True)
class Inputs:
    """An input set: the keys of its entry in a matrix, the shape of a sample, whether labelled."""

    entry: Mapping[str, object]
    shape: Shape | None
    labelled: bool


def layout(have: Shape | None, takes: Shape) -> str:
    """How samples of shape ``have`` must be turned for a model that takes ``takes``."""
    if have is None or _fits(have, takes):
        return "same"
    if len(have) == 3 and _fits((have[2], *have[:2]), takes):
        return "nchw"
    flat = len(takes) == 1 and takes[0] in (-1, math.prod(have))
    return "flat" if flat else "same"


def _fits(have: Shape, takes: Shape) -> bool:
    return len(have) == len(takes) and all(t in (-1, h) for h, t in zip(have, takes, strict=True))


def name_of(stem: str) -> str:
    """A file's stem as a name that matrices allow."""
    return re.sub(r"[^A-Za-z0-9._+-]+", "-", stem).strip("-._+")[:63] or "model"


def matrix(files: Sequence[Model], parent: Model | None, inputs: Inputs) -> str:
    """The matrix; ``files`` are INT8 files of one network, at least one."""
    lines = [
        "# What is measured: every file on every device under every runtime and condition.",
        "version: 1",
        f"name: {_text(name_of(files[0].path.rpartition('/')[2].partition('.')[0]))}",
        "inventory: inventory.yaml",
        "policy: policy.yaml",
        "",
        "models:",
        "  - name: net",
        *_task(files[0].gives),
        *_parent(parent, inputs),
        "    inputs: samples",
        "    files: # layout: same, nchw (channels-last samples to channels-first) or flat",
        *_files(files, inputs),
        "",
        "inputs:",
        f"  - {_flow({'name': 'samples', **inputs.entry})}",
        "",
        "devices: # by name, tag or class; globs are allowed",
        "  - {name: here}",
        "",
        "runtimes:",
    ]
    for format in dict.fromkeys(f.format for f in files):
        name, runtime = RUNTIMES[format]
        lines.append(f"  - {_flow({'name': name, 'runtime': runtime, 'threads': 1})}")
    lines += [
        "",
        "# Also: soak:75C, power:MODE, order:SEED.",
        'conditions: [clean, "repeat:100"]',
    ]
    return "\n".join(lines) + "\n"


def inventory() -> str:
    return (
        "# The devices. `assay devices scan` proposes entries for those it finds.\n"
        "version: 1\n"
        "devices:\n"
        "  # This computer, with the Python that runs assay.\n"
        '  - {name: here, class: host, transport: {type: local}, python: {default: "${PYTHON}"}}\n'
    )


def policy(files: Sequence[Model], parent: Model | None, inputs: Inputs) -> str:
    name, _ = RUNTIMES[files[0].format]
    accuracy = parent is not None and inputs.labelled
    return "\n".join(
        [
            "# What has to hold before hardware may ship. Gates that are left out do not apply.",
            "name: mine",
            "# The row that others are compared with, the first of these that there is.",
            f"reference: [{_flow({'device': 'here', 'runtime': name})}]",
            "gates:",
            "  # No differing byte in 100 passes over 8 samples.",
            "  G2: {enabled: true, min_repeats: 100, min_samples: 8}",
            "  # INT8 accuracy of FP32's" + ("." if accuracy else ": needs `fp32` and labels."),
            f"  G3: {{enabled: {_bool(accuracy)}, min_ratio: 0.99}}",
            "  # Decisions that differ from FP32's" + ("." if parent else ": needs `fp32`."),
            f"  G5: {{enabled: {_bool(parent is not None)}, max_disagreement: 0.05}}",
            "  # Decisions that differ from the reference's, and codes that do.",
            "  G6: {enabled: true, max_disagreement: 0.005}",
            "  G7: {enabled: true, max_lsb: 2, max_share: 0.01}",
            "",
        ]
    )


def _task(gives: Shape) -> list[str]:
    if gives and gives[-1] > 1:
        return [
            "    # Guessed from the output's shape. Also: regression, anomaly.",
            "    task: {type: classification}",
        ]
    return [
        "    # Guessed from the output's shape. Set how far a value may be off, in its own units.",
        "    task: {type: regression, tolerance: 0.1}",
    ]


def _parent(parent: Model | None, inputs: Inputs) -> list[str]:
    if parent is None:
        return ["    # fp32: {path: FILE}  # what it was quantised from: accuracy is against it"]
    entry = {"path": parent.path, "layout": layout(inputs.shape, parent.takes)}
    return [f"    fp32: {_flow(entry)}"]


def _files(files: Sequence[Model], inputs: Inputs) -> list[str]:
    names = [name_of(f.path.rpartition("/")[2].rpartition(".")[0]) for f in files]
    distinct = len(set(names)) == len(names)
    return [
        "      - "
        + _flow(
            {
                "name": name if distinct else f"{name}-{i}",
                "path": file.path,
                "layout": layout(inputs.shape, file.takes),
            }
        )
        for i, (name, file) in enumerate(zip(names, files, strict=True), start=1)
    ]


def _flow(entry: Mapping[str, object]) -> str:
    """A mapping on one line; JSON's strings and numbers are YAML's."""
    return "{" + ", ".join(f"{key}: {_text(value)}" for key, value in entry.items()) + "}"


def _text(value: object) -> str:
    if isinstance(value, str) and re.fullmatch(r"[A-Za-z_][A-Za-z0-9_./+-]*", value):
        return f'"{value}"' if value.lower() in ("true", "false", "null", "yes", "no") else value
    return json.dumps(value, ensure_ascii=False)


def _bool(value: bool) -> str:
    return "true" if value else "false"
