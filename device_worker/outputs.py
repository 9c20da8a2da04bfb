"""Writing what a model put out, byte for byte, as .npy files filled sample by sample."""

from __future__ import annotations

import hashlib
import io
import os
from typing import BinaryIO, List, Optional, Sequence

import numpy as np

from device_worker.arrays import Array
from device_worker.cache import sha256_file
from device_worker.errors import WorkerError
from device_worker.runtimes import TensorInfo
from device_worker.wire import Blob, DeviceFile, OutputTensor

_BUFFER = 1 << 20


def sample_digest(outputs: Sequence[Array]) -> bytes:
    """sha256 over one sample's output bytes in tensor order."""
    digest = hashlib.sha256()
    for output in outputs:
        digest.update(_raw(output))
    return digest.digest()


def write_npy(path: str, array: Array) -> DeviceFile:
    """Save ``array`` and return where, with the hash of the file. Raises OSError."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return write_bytes(path, buffer.getvalue())


def write_bytes(path: str, data: bytes) -> DeviceFile:
    """Save ``data`` and return where, with its hash. Raises OSError."""
    with open(path, "wb") as file:
        file.write(data)
    return DeviceFile(path, Blob(hashlib.sha256(data).hexdigest(), len(data)))


class OutputFile:
    """One output tensor: [samples, ...] on disk, the runtime's own bytes in the samples' order."""

    def __init__(self, path: str, info: TensorInfo, first: Array, samples: int) -> None:
        """``first`` gives dtype and shape; its leading axis of 1 becomes the sample axis."""
        self._path, self._info = path, info
        self._dtype, self._one = first.dtype, first.shape
        if first.dtype.hasobject:
            raise WorkerError(
                "model_error", "E-MODEL-OUTPUT", "output %r has no number type" % (info.name,)
            )
        rest = first.shape[1:] if first.shape[:1] == (1,) else first.shape
        self._shape = (samples, *rest)
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(
            header,
            {
                "descr": np.lib.format.dtype_to_descr(first.dtype),
                "fortran_order": False,
                "shape": self._shape,
            },
        )
        self._digest = hashlib.sha256()
        self._start, self._one_size = len(header.getvalue()), first.nbytes
        self._size, self._in_order = 0, True
        self._file: BinaryIO = open(path, "wb", buffering=_BUFFER)  # noqa: SIM115  # closed by close()
        self._append(header.getvalue())

    def add(self, output: Array, sample: int) -> None:
        """Write one sample in its place. Raises WorkerError E-MODEL-OUTPUT: dtype or shape vary."""
        if output.shape != self._one or output.dtype != self._dtype:
            raise WorkerError(
                "model_error",
                "E-MODEL-OUTPUT",
                "output %r changed from %s%s to %s%s between samples"
                % (self._info.name, self._dtype, self._one, output.dtype, output.shape),
            )
        place = self._start + sample * self._one_size
        if place != self._size:
            self._in_order = False
        if not self._in_order:
            self._file.seek(place)
        self._append(_raw(output))

    def finish(self) -> OutputTensor:
        """Close the file and describe it. Raises OSError when its end cannot be written."""
        self._file.close()
        sha256 = self._digest.hexdigest()
        if not self._in_order:
            sha256 = sha256_file(self._path)
        return OutputTensor(
            name=self._info.name,
            path=self._path,
            blob=Blob(sha256, self._size),
            dtype=str(self._dtype),
            shape=list(self._shape),
            scale=self._info.scale,
            zero_point=self._info.zero_point,
        )

    def close(self) -> None:
        """Let go of the file without its unwritten end. Never raises."""
        try:
            self._file.close()
        except OSError:
            return  # the attempt failed already and its files are about to be deleted

    def _append(self, data: bytes) -> None:
        self._file.write(data)
        self._digest.update(data)
        self._size += len(data)


class Outputs:
    """All output tensors of an attempt under ``folder``; files open at the first sample."""

    def __init__(self, folder: str, infos: List[TensorInfo], samples: int) -> None:
        self._folder, self._infos, self._samples = folder, infos, samples
        self._files: Optional[List[OutputFile]] = None

    def add(self, outputs: Sequence[Array], sample: int) -> bytes:
        """Write every tensor of ``sample``, each of which comes once, in any order; its digest.

        Raises OSError, WorkerError.
        """
        if self._files is None:
            self._files = []
            for position, (info, output) in enumerate(zip(self._infos, outputs)):
                path = os.path.join(self._folder, "output_%d.npy" % position)
                self._files.append(OutputFile(path, info, output, self._samples))
        for file, output in zip(self._files, outputs):
            file.add(output, sample)
        return sample_digest(outputs)

    def finish(self) -> List[OutputTensor]:
        return [file.finish() for file in self._files or ()]

    def close(self) -> None:
        for file in self._files or ():
            file.close()


def _raw(output: Array) -> bytes:
    return output.tobytes()
