"""Matrices over $ASSAY_REALMODELS, where the models and inputs stay."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import yaml

from tests.support.cli import REPO
from tests.support.isa import VNNI

MODELS = Path(os.environ.get("ASSAY_REALMODELS") or "missing")
INVENTORY = REPO / "matrices" / "inventories" / "lab.yaml"


def write(folder: Path, devices: list[str], **parts: Any) -> Path:
    """A matrix in ``folder``; no path of it is relative, so nothing is copied."""
    policy = {
        "name": "real models, one pass over each input set",
        "accept_emulated": True,
        "reference": [
            {"device": "host", "runtime": "ort", "isa_any": sorted(VNNI)},
            {"device": "qemu-a72", "runtime": "ort"},
            {"device": "host", "runtime": "tflite214"},
            {"device": "*", "runtime": "tflite214"},
        ],
        "gates": {"G2": {"enabled": False}},
    }
    (folder / "policy.yaml").write_text(yaml.safe_dump(policy))
    matrix = {
        "version": 1,
        "name": "realmodels",
        "inventory": str(INVENTORY),
        "policy": "policy.yaml",
        "devices": [{"name": name} for name in devices],
        "runtimes": [
            {"name": "ort", "runtime": "onnxruntime", "threads": 1},
            {"name": "litert", "runtime": "litert", "threads": 1},
            {"name": "tflite214", "runtime": "tflite-runtime", "threads": 2},
        ],
        "timeouts": {"cell": "20m", "silence": "10m"},
        **parts,
    }
    path = folder / "matrix.yaml"
    path.write_text(yaml.safe_dump(matrix, sort_keys=False))
    return path


def classifiers() -> dict[str, Any]:
    kws, cifar = MODELS / "kws_dscnn", MODELS / "cifar10_resnet8"
    models = [
        {
            "name": "kws",
            "task": {"type": "classification"},
            "fp32": str(kws / "kws_savedmodel_fp32.tflite"),
            "inputs": "clips",
            "files": [
                {"name": "savedmodel", "path": str(kws / "kws_savedmodel_int8.tflite")},
                # Another training run: shapes alone cannot tell that this is no true pair.
                {"name": "ref", "path": str(kws / "kws_ref_model_int8.tflite")},
                {
                    "name": "qdq",
                    "path": str(kws / "kws_ref_model_int8_qdq.onnx"),
                    "layout": "flat",
                },
            ],
        },
        {
            "name": "resnet8",
            "task": {"type": "classification"},
            "fp32": str(cifar / "resnet8_fp32.tflite"),
            "inputs": "pictures",
            "files": [
                {"name": "int8", "path": str(cifar / "resnet8_int8.tflite")},
                {"name": "qdq", "path": str(cifar / "resnet8_int8_qdq.onnx")},
            ],
        },
    ]
    inputs = [
        {"name": "clips", "array": "features", "path": str(kws / "eval_features.npz")},
        {"name": "pictures", "array": "images", "path": str(cifar / "eval_images.npz")},
    ]
    return {"models": models, "inputs": [{"type": "npz", "labels": "labels", **x} for x in inputs]}
