"""The probe pack: all probes of a model format, and the archive that carries them to a device."""

from __future__ import annotations

import math
from functools import cache

from device_worker.batch import Trial
from orchestrator.devices.batch import Archive, pack
from orchestrator.fingerprint import (
    onnx_layers,
    onnx_maths,
    onnx_net,
    tflite_floats,
    tflite_layers,
    tflite_maths,
)
from orchestrator.fingerprint.probe import Feed, Probe

PARTS = {
    "onnx": (onnx_layers, onnx_maths, onnx_net),
    "tflite": (tflite_layers, tflite_maths, tflite_floats),
}


@cache
def probes(model_format: str) -> tuple[Probe, ...]:
    return tuple(probe for part in PARTS[model_format] for probe in part.probes())


SHARED_OUT = 4096
"""Elements of a probe's inputs from which on a runtime shares its work out among threads."""


@cache
def wide(model_format: str) -> tuple[Probe, ...]:
    """Those whose answer may depend on the number of threads."""
    large = (p for p in probes(model_format) if sum(_size(f) for f in p.feeds) >= SHARED_OUT)
    return tuple(large)


@cache
def archive(chosen: tuple[Probe, ...]) -> Archive:
    """Models, and inputs that the device cannot make itself. The same bytes on every machine."""
    feeds: dict[Feed, str] = {}
    trials, models = [], {}
    for number, probe in enumerate(chosen):
        model = f"m{number}"  # a zip holds every name twice
        models[model] = probe.model
        names = [feeds.setdefault(feed, f"x{len(feeds)}") for feed in probe.feeds]
        trials.append(Trial(probe.name, model, names, probe.graph))
    sent = {name: feed.values() for feed, name in feeds.items() if feed.sent}
    made = {name: feed.recipe for feed, name in feeds.items() if not feed.sent}
    return pack(trials, models, sent, made)


def _size(feed: Feed) -> int:
    return math.prod(feed.shape)
