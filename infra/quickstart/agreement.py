"""The check that every FP32 export is the net that was trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from ai_edge_litert.interpreter import Interpreter

from infra.quickstart.nets import MODEL_INPUT, Floats, Net


def assert_same_fp32(net: Net, models: Path, x: Floats, keras_model: Any) -> float:
    """Keras, ONNX and TFLite must agree to 1e-3 on every logit; returns the largest difference.

    `x` is NHWC. Ends the build when they do not agree.
    """
    session = onnxruntime.InferenceSession(models / f"{net.name}.fp32.onnx")
    from_onnx = session.run(None, {MODEL_INPUT: x.transpose(0, 3, 1, 2)})[0]
    interpreter = Interpreter(model_path=str(models / f"{net.name}.fp32.tflite"))
    interpreter.allocate_tensors()
    source = interpreter.get_input_details()[0]["index"]
    target = interpreter.get_output_details()[0]["index"]
    from_tflite = []
    for image in x:
        interpreter.set_tensor(source, image[None])
        interpreter.invoke()
        from_tflite.append(interpreter.get_tensor(target)[0])
    from_keras = keras_model.predict(x, verbose=0)
    worst = max(
        float(np.abs(from_onnx - np.stack(from_tflite)).max()),
        float(np.abs(from_onnx - from_keras).max()),
    )
    if not worst < 1e-3:
        raise SystemExit(f"{net.name}: FP32 exports differ by {worst}")
    return worst
