"""Real answers to draw cases from: every file of the quickstart in every runtime at hand.

Each is computed once by a real worker, on this machine and on the boards that answer; cases are
then subsets of samples of these, planted with defects or left alone.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from device_worker import wire
from device_worker.batch import Trial
from orchestrator.devices.batch import Answered, pack, run
from orchestrator.devices.session import DeviceSession, Limits
from orchestrator.inputs.inspect import inspect
from orchestrator.matrix.loader import load_inventories
from orchestrator.transports import LocalSettings, open_transport
from orchestrator.transports.settings import TransportSettings
from orchestrator.variance.lattice import Array, Output
from tests.conftest import BOARDS, REPO, farm_trouble

QUICKSTART = REPO / "matrices" / "quickstart"
OLD_PYTHON = REPO / ".venv-tflite" / "bin" / "python"
NETS = {"cnn": "digits_8x8.npz", "ds": "digits_32x32.npz"}
HERE = "host"


@dataclass(frozen=True)
class Way:
    """How a file is run. ``name`` is short; ``device`` HERE or a virtual board."""

    name: str
    spec: wire.RuntimeSpec
    device: str = HERE


LITERT = Way("litert", wire.RuntimeSpec("litert"))
REFERENCE = Way("reference", wire.RuntimeSpec("litert", kernels="reference"))
OLD = Way("old", wire.RuntimeSpec("tflite-runtime"))
ORT = Way("ort", wire.RuntimeSpec("onnxruntime"))
ORT2 = Way("ort2", wire.RuntimeSpec("onnxruntime", threads=2))
LITERT2 = Way("litert2", wire.RuntimeSpec("litert", threads=2))
FLOAT_QDQ = Way(
    "float-qdq", wire.RuntimeSpec("onnxruntime", session={"session.disable_quant_qdq": "1"})
)
HASWELL = Way("haswell", wire.RuntimeSpec("onnxruntime"), "qemu-haswell")
BAD = Way("bad", wire.RuntimeSpec("litert"), "qemu-badboard")


@dataclass(frozen=True, eq=False)
class Answer:
    """Outputs [n, classes] of one file run one way, with what its runtime said of it."""

    output: Output
    backend: wire.Backend
    environment: Mapping[str, object]
    inputs: tuple[str, ...]


@dataclass
class World:
    """``labels`` [n]; ``x`` per net as its files take it, TFLite order of axes first."""

    labels: NDArray[np.int64]
    images: dict[str, Array]
    _sessions: dict[str, tuple[DeviceSession, Mapping[str, str]]]
    missing: dict[str, str] = field(default_factory=dict)
    _known: dict[tuple[str, str, str], Answer] = field(default_factory=dict)

    def offers(self, way: Way) -> bool:
        return way.name not in self.missing

    def file(self, net: str, kind: str) -> Path:
        return QUICKSTART / "models" / f"digits_{net}.{kind}"

    def saturable(self, net: str, kind: str) -> int:
        return inspect(self.file(net, kind)).saturable

    def answer(self, net: str, kind: str, way: Way) -> Answer:
        key = net, kind, way.name
        if key not in self._known:
            model = self.file(net, kind).read_bytes()
            self._known[key] = self.run(net, kind, way, model)
        return self._known[key]

    def run(self, net: str, kind: str, way: Way, model: bytes, x: Array | None = None) -> Answer:
        """Run ``model``, perhaps a spoilt one, in place of the file ``kind`` of the net."""
        given = self.fed(net, kind) if x is None else x
        archive = pack([Trial("m", "m", ["x"])], {"m": model}, {"x": given})
        session, pythons = self._sessions[way.device]
        python = pythons.get(way.spec.runtime, pythons["default"])
        answers = run(session, session.worker(python), archive, way.spec)
        if (way.device, python) != (HERE, pythons["default"]):
            session.retire(python)  # it would end by itself before it is needed again
        return self._read(net, kind, answers["m"], answers.environment)

    def fed(self, net: str, kind: str) -> Array:
        """[n, 1, ...] as the file takes it."""
        x = self.images[net]
        info = inspect(self.file(net, kind)).inputs[0]
        if kind.endswith(".onnx"):
            x = x.transpose(0, 3, 1, 2)
        elif info.scale is not None:
            codes = np.rint(x / info.scale) + (info.zero_point or 0)
            x = np.clip(codes, info.code_min, info.code_max).astype(info.dtype)
        return np.ascontiguousarray(x[:, None])

    def _read(
        self, net: str, kind: str, answered: Answered, environment: Mapping[str, object]
    ) -> Answer:
        assert answered.tried.error is None, answered.tried.error
        assert answered.tried.backend is not None
        info = inspect(self.file(net, kind)).outputs[0]
        values = answered.outputs[0].reshape(len(self.labels), -1)
        output = Output(
            info.name, values, info.scale, info.zero_point, info.code_min, info.code_max
        )
        inputs = tuple(answered.tried.input_sha256)
        return Answer(output, answered.tried.backend, environment, inputs)


@contextmanager
def world(samples: int = 1000, boards: bool = True) -> Iterator[World]:
    """Sessions stay open meanwhile. What this machine lacks is in ``missing``, with the reason."""
    sets = {net: np.load(QUICKSTART / file) for net, file in NETS.items()}
    labels = sets["cnn"]["y"][:samples].astype(np.int64)
    images = {net: data["x"][:samples].astype(np.float32) for net, data in sets.items()}
    missing: dict[str, str] = {}
    pythons = {"default": sys.executable}
    if OLD_PYTHON.exists():
        pythons["tflite-runtime"] = str(OLD_PYTHON)
    else:
        missing[OLD.name] = "no Python for tflite-runtime"
    with tempfile.TemporaryDirectory(prefix="assay-validity-") as folder:
        opened: dict[str, tuple[DeviceSession, Mapping[str, str]]] = {}
        devices: dict[str, tuple[TransportSettings, Mapping[str, str]]] = {
            HERE: (LocalSettings(root=f"{folder}/root"), pythons)
        }
        trouble = farm_trouble() if boards else "boards were not asked for"
        if trouble is None:
            for device in load_inventories((BOARDS,)).devices:
                if device.name in (HASWELL.device, BAD.device):
                    devices[device.name] = device.transport, device.python
        else:
            missing |= {HASWELL.name: trouble, BAD.name: trouble}
        try:
            for name, (settings, at) in devices.items():
                session = DeviceSession(
                    open_transport(settings, device=name),
                    device=name,
                    owner="validity",
                    token=1,
                    limits=Limits(900, 120),
                )
                session.__enter__()
                opened[name] = session, at
            yield World(labels, images, opened, missing)
        finally:
            for session, _ in opened.values():
                session.__exit__(None, None, None)
