"""Train the quickstart's two nets on real handwritten digits and write every file they come as.

Writes, under the folder given by ``--out``: the FP32 and INT8 models, the held-out test images, the
index split, and a record of the tools used. Nothing else is read or written; measuring and the
model card are `measure.py`. Runs in its own environment (see README.md), never in the project's.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

# Read by the libraries when they are imported, so set before the modules that import them. oneDNN
# picks kernels by CPU and thread count; without it the weights depend on less.
os.environ["TF_ENABLE_ONEDNN_OPTS"] = "0"
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["CUDA_VISIBLE_DEVICES"] = ""
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import tensorflow as tf

from infra.quickstart.agreement import assert_same_fp32
from infra.quickstart.digits import load, write_images, write_split
from infra.quickstart.export_onnx import write_onnx
from infra.quickstart.export_tflite import write_tflite
from infra.quickstart.keras_nets import train, trained_steps
from infra.quickstart.nets import NETS
from infra.quickstart.records import write_build, write_sums


def build(out: Path) -> None:
    """Everything: data, both nets, all their files, the records."""
    models = out / "models"
    models.mkdir(parents=True, exist_ok=True)
    digits = load()
    split = digits.split
    fp32_gap, parameters = {}, {}
    for net in NETS:
        x = digits.as_input(net.side)
        write_images(out, digits, x)
        model = train(net, x[split.train], digits.labels[split.train])
        steps = trained_steps(net, model)
        parameters[net.name] = sum(step.weight.size + step.bias.size for step in steps)
        write_onnx(net, steps, x[split.calibration], models)
        write_tflite(net, steps, x[split.calibration], models)
        fp32_gap[net.name] = assert_same_fp32(net, models, x[split.calibration], model)
    write_split(out, digits)
    write_build(out, parameters, fp32_gap)
    write_sums(out)


def main() -> None:
    """Parse the one option, fix every source of chance, build."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    out = parser.parse_args().out
    tf.config.experimental.enable_op_determinism()
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    build(out)


if __name__ == "__main__":
    main()
