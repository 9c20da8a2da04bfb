"""Where models can run here: in this process, in an older runtime, on the boards that answer."""

from __future__ import annotations

import hashlib
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from device_worker.wire import RuntimeSpec
from orchestrator.coordinator.device_pair import archive, tried
from orchestrator.devices import batch
from orchestrator.devices.session import DeviceSession, Limits
from orchestrator.diagnosis.pair import Trial, Tried
from orchestrator.matrix.loader import load_inventories
from orchestrator.transports import LocalSettings, open_transport
from orchestrator.transports.settings import TransportSettings
from orchestrator.variance.lattice import Array
from tests.benchmarks.validity.case import Net, Rows
from tests.benchmarks.validity.methods import surgery_here
from tests.benchmarks.validity.unit import Fault, Told, Unit, installed
from tests.conftest import BOARDS, REPO, farm_trouble

Random = np.random.Generator
QUICKSTART = REPO / "matrices" / "quickstart"
OLD_PYTHON = REPO / ".venv-tflite" / "bin" / "python"
LITERT, ORT = RuntimeSpec("litert"), RuntimeSpec("onnxruntime")
OLD, HASWELL, BAD = "tflite-runtime 2.14", "qemu-haswell", "qemu-badboard"
SPECS = {OLD: RuntimeSpec("tflite-runtime"), HASWELL: ORT, BAD: LITERT}


IDLE_S = 20.0
"""A worker that nobody talks to ends by itself; after so long another one is started."""


class Remote:
    """A runtime in another process or on a board, through a session. Whole answers are kept."""

    def __init__(self, name: str, spec: RuntimeSpec, session: DeviceSession, python: str) -> None:
        self.name, self.spec = name, spec
        self._session, self._python = session, python
        self._known: dict[str, Told] = {}
        self._used = time.monotonic()

    def run(self, trials: Sequence[Trial], *, optimise: bool = True) -> list[Tried]:
        answers = self._batch(trials, replace(self.spec, optimise=optimise))
        return [tried(answer, self.name) for answer in answers.trials]

    def answer(self, model: bytes, x: Array) -> Told:
        key = hashlib.sha256(model + x.tobytes()).hexdigest()
        if key not in self._known:
            answers = self._batch([Trial("0", model, (x,))], self.spec)
            one = answers.trials[0]
            assert one.tried.error is None, one.tried.error
            assert one.tried.backend is not None
            inputs = tuple(one.tried.input_sha256)
            environment = dict(answers.environment)
            self._known[key] = Told(one.outputs, one.tried.backend, environment, inputs)
        return self._known[key]

    def _batch(self, trials: Sequence[Trial], spec: RuntimeSpec) -> batch.Answers:
        if time.monotonic() - self._used > IDLE_S:
            self._session.retire(self._python)
        try:
            worker = self._session.worker(self._python)
            return batch.run(self._session, worker, archive(trials), spec)
        finally:
            self._used = time.monotonic()


@dataclass
class World:
    """``remote``: by name, those that answer; ``missing``: the others, and why."""

    folder: Path
    nets: Sequence[Net]
    remote: Mapping[str, Remote] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)
    _sound: dict[str, Unit] = field(default_factory=dict)

    def unit(self, spec: RuntimeSpec, fault: Fault) -> Unit:
        return Unit(self.folder, spec, fault)

    def sound(self, spec: RuntimeSpec, twin: bool = False) -> Unit:
        """The one unit of this machine that runs so and has no fault, or its ``twin``."""
        key = repr((spec, twin))
        if key not in self._sound:
            self._sound[key] = Unit(self.folder, spec)
        return self._sound[key]


def spec_of(file: str) -> RuntimeSpec:
    return LITERT if file.endswith(".tflite") else ORT


def rows(net: Net, random: Random, sizes: Sequence[int]) -> Rows:
    n = min(int(random.choice(sizes)), len(net.labels))
    return np.sort(random.choice(len(net.labels), n, replace=False)).astype(np.int64)


def quickstart(samples: int) -> list[Net]:
    found = []
    for name, data in {"cnn": "digits_8x8.npz", "ds": "digits_32x32.npz"}.items():
        files = sorted((QUICKSTART / "models").glob(f"digits_{name}.*"))
        known = {f.name.partition(".")[2]: f.read_bytes() for f in files}
        with np.load(QUICKSTART / data) as loaded:
            images = loaded["x"][:samples].astype(np.float32)
            labels = loaded["y"][:samples].astype(np.int64)
        parents = {form: known.pop(f"fp32.{form}") for form in ("onnx", "tflite")}
        found.append(Net(name, known, parents, images, labels))
    return found


@contextmanager
def world(nets: Sequence[Net], boards: bool = True) -> Iterator[World]:
    """What this machine lacks is in ``missing``, with the reason."""
    missing: dict[str, str] = {}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="assay-validity-")))
        stack.enter_context(installed())
        stack.enter_context(surgery_here())
        remote = {}
        if OLD_PYTHON.exists():
            settings = LocalSettings(root=str(folder / "old"))
            remote[OLD] = _remote(stack, OLD, settings, str(OLD_PYTHON))
        else:
            missing[OLD] = "no Python for tflite-runtime"
        trouble = farm_trouble() if boards else "boards were not asked for"
        if trouble is not None:
            missing |= {HASWELL: trouble, BAD: trouble}
        else:
            for device in load_inventories((BOARDS,)).devices:
                if device.name in (HASWELL, BAD):
                    python = device.interpreter(SPECS[device.name].runtime) or sys.executable
                    remote[device.name] = _remote(stack, device.name, device.transport, python)
        yield World(folder, nets, remote, missing)


def _remote(stack: ExitStack, name: str, settings: TransportSettings, python: str) -> Remote:
    transport = open_transport(settings, device=name)
    limits = Limits(900, 120)
    session = DeviceSession(transport, device=name, owner="validity", token=1, limits=limits)
    stack.enter_context(session)
    return Remote(name, SPECS[name], session, python)
