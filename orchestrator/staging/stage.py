"""From files the user named to immutable artefacts: models, exact input tensors, labels.

Everything a run needs later is put under its hash here, once, before the run exists; afterwards
the user's files are never read again, so changing one cannot change a run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from orchestrator.conditions import Draw, parse
from orchestrator.errors import AssayError, InputError
from orchestrator.matrix.loader import sha256_file
from orchestrator.matrix.model import InputSpec, Layout, Matrix, Parent
from orchestrator.matrix.plan import Cell
from orchestrator.matrix.yamlfile import Loc
from orchestrator.runs.staged import (
    Compiled,
    Lineage,
    StagedModel,
    StagedOutput,
    StagedSet,
    StagedTensor,
    Staging,
    twin_key,
)
from orchestrator.store.artefacts import Artefacts
from orchestrator.store.records import Blob


class Compute(Protocol):
    """Runs a pure function somewhere: Executor.compute, or here and now."""

    def __call__(self, function: Callable[..., Any], *args: Any) -> Future[Any]: ...


def stage(
    matrix: Matrix,
    cells: Sequence[Cell],
    artefacts: Artefacts,
    compute: Compute,
    where: Callable[[Loc], str],
    *,
    lineage: bool = True,
) -> Staging:
    """Inspect, load, prepare and store what the cells need. ``where``: as of the loaded matrix.

    ``lineage``: whether to look for it, which refuses nothing and takes longest.

    Raises the InputErrors of `orchestrator.inputs` (unreadable model, wrong shapes, bad arrays,
    a parent that is none, a source that is none) and E-TASK-MISMATCH before anything refers to the
    run.
    """
    files: dict[str, Parent] = {}
    sources: dict[str, tuple[str, str]] = {}  # -> key and name of the file it was compiled from
    parents: dict[str, Parent] = {}
    twins: dict[str, Parent] = {}
    for cell in cells:
        model = matrix.model(cell.model)
        key, file = f"{cell.model}.{cell.file}", matrix.file(cell.model, cell.file)
        files[key] = file
        if file.compiled_from is not None:
            sources[key] = f"{cell.model}.{file.compiled_from}", file.compiled_from
            files[sources[key][0]] = matrix.file(cell.model, file.compiled_from)
        if (parent := model.fp32) is not None:
            files[cell.model] = parents[key] = parent
        if (twin := model.fp32_twin) is not None and twin.format == file.format:
            files[twin_key(cell.model)] = twins[key] = twin
    names = sorted({cell.inputs for cell in cells})
    inspected = {key: compute(inspect_model, file.path) for key, file in files.items()}
    # A compiled file's weights are sealed; those of the file it was compiled from are the same.
    origins, twin_origins = (
        {
            key: compute(find_lineage, files[sources.get(key, (key,))[0]].path, parent.path)
            for key, parent in named.items()
            if lineage
        }
        for named in (parents, twins)
    )
    loaded = {name: compute(load_set, matrix.input_set(name)) for name in names}
    infos = {key: future.result() for key, future in inspected.items()}
    for cell in cells:
        key = f"{cell.model}.{cell.file}"
        if key in parents:
            check_pair(infos[key], infos[cell.model])
        if key in twins:
            check_pair(infos[key], infos[twin_key(cell.model)])
    for key, (source, _) in sources.items():
        check_source(infos[key], infos[source])
    sets = {name: future.result() for name, future in loaded.items()}
    for asked in dict.fromkeys((c.model, c.file, c.inputs) for c in cells):
        check_fit(matrix, asked, infos[".".join(asked[:2])], sets[asked[2]], where)
    wanted = sorted(
        {(key, cell.inputs) for cell in cells for key in _keys(cell.model, cell.file, files)}
    )
    tensors = {
        f"{key}/{name}": compute(prepare_tensor, sets[name].x, files[key].layout, infos[key])
        for key, name in wanted
    }
    spots = {
        parse(cell.condition).tensor(cell.inputs): draw(len(sets[cell.inputs].x), part)
        for cell in cells
        if (part := parse(cell.condition).draw)
    }
    whole = {key: future.result() for key, future in tensors.items()}
    drawn = {
        f"{key}/{part}": whole[f"{key}/{cell.inputs}"][spots[part]]
        for cell in cells
        for key, part in [(f"{cell.model}.{cell.file}", parse(cell.condition).tensor(cell.inputs))]
        if part in spots
    }
    return Staging(
        models={
            key: _keep_model(
                file,
                infos[key],
                artefacts,
                _compiled(key, infos, sources),
                *(told[key].result() if key in told else None for told in (origins, twin_origins)),
            )
            for key, file in files.items()
        },
        tensors={key: _keep_tensor(x, artefacts) for key, x in {**whole, **drawn}.items()},
        sets={name: _keep_set(dataset, artefacts) for name, dataset in sets.items()},
        spots={key: _put(positions, artefacts).sha256 for key, positions in spots.items()},
    )


def check_unchanged(matrix: Matrix, staging: Staging, files: Mapping[str, str]) -> None:
    """InputError E-FILE-CHANGED unless ``files`` (path -> sha256) are the staged bytes."""
    for model in matrix.models:
        named: dict[str, Parent] = {f"{model.name}.{f.name}": f for f in model.files}
        keys = {"fp32": model.name, "fp32_twin": twin_key(model.name)}
        named |= {keys[field]: parent for field, parent in model.parents.items()}
        for key, file in named.items():
            staged = staging.models.get(key)
            if staged is not None and files[str(file.path)] != staged.sha256:
                raise _changed(file.path)


def here(function: Callable[..., Any], *args: Any) -> Future[Any]:
    """`Compute` without a fan-out."""
    future: Future[Any] = Future()
    try:
        future.set_result(function(*args))
    except Exception as error:  # noqa: BLE001  handed on to whoever asks for the result
        future.set_exception(error)
    return future


@dataclass(frozen=True)
class Inspected:
    """``sha256``: of the file's bytes just before it was inspected."""

    sha256: str
    info: Any


def inspect_model(path: Path) -> Inspected:
    from orchestrator.models.inspect import inspect

    return Inspected(sha256_file(path), inspect(path))


def find_lineage(int8: Path, fp32: Path) -> Lineage:
    """Told or not, it stops no run: what cannot be read is inconclusive, and says why."""
    from orchestrator.models.lineage import compare

    try:
        return Lineage.model_validate(compare(int8, fp32))
    except (AssayError, OSError) as error:
        return Lineage(verdict="inconclusive", reason=str(error))


def load_set(spec: InputSpec) -> Any:
    from orchestrator.staging.dataset import load

    return load(spec)


def check_pair(quantised: Inspected, parent: Inspected) -> None:
    from orchestrator.models.inspect import check_parent

    check_parent(quantised.info, parent.info)


def check_source(compiled: Inspected, source: Inspected) -> None:
    from orchestrator.models.inspect import check_compiled

    check_compiled(compiled.info, source.info)


def check_fit(
    matrix: Matrix,
    names: tuple[str, str, str],
    inspected: Inspected,
    dataset: Any,
    where: Callable[[Loc], str],
) -> None:
    from orchestrator.staging.task_check import check

    check(matrix, names, inspected.info.outputs, dataset, where)


def draw(total: int, asked: Draw) -> Any:
    """int64[n], ascending: the positions that are drawn of ``total``, none twice."""
    import numpy as np

    order = np.random.default_rng(asked.seed).permutation(total)
    return np.sort(order[: asked.count]).astype(np.int64)


def _compiled(
    key: str, infos: Mapping[str, Inspected], sources: Mapping[str, tuple[str, str]]
) -> Compiled | None:
    from orchestrator.models.inspect import EDGETPU_OP

    info, source = infos[key].info, sources.get(key)
    if source is None and not info.compiled:
        return None
    return Compiled(
        partitions=info.operators.get(EDGETPU_OP, 0),
        bytes=info.edgetpu_bytes,
        cpu={kind: n for kind, n in info.operators.items() if kind != EDGETPU_OP},
        source=source[1] if source else None,
        source_sha256=infos[source[0]].sha256 if source else None,
    )


def prepare_tensor(x: Any, layout: Layout, model: Inspected) -> Any:
    """[n, ...] of the input set -> what the model takes. InputError E-INPUT-*, E-MODEL-INPUTS."""
    from orchestrator.models.inspect import single_input
    from orchestrator.staging.prepare import prepare

    return prepare(x, layout, single_input(model.info))


def _keys(model: str, file: str, files: dict[str, Parent]) -> list[str]:
    return [key for key in (f"{model}.{file}", model, twin_key(model)) if key in files]


def _keep_model(
    file: Parent,
    model: Inspected,
    artefacts: Artefacts,
    compiled: Compiled | None,
    lineage: Lineage | None,
    twin_lineage: Lineage | None,
) -> StagedModel:
    data = read_file(file.path)
    sha256 = artefacts.put_bytes(data).sha256
    if sha256 != model.sha256:
        raise _changed(file.path)
    return StagedModel(
        sha256=sha256,
        size=len(data),
        format=file.format,
        input_name=model.info.inputs[0].name,
        outputs=tuple(
            StagedOutput(
                name=o.name,
                scale=o.scale,
                zero_point=o.zero_point,
                code_min=o.code_min,
                code_max=o.code_max,
                dtype=o.dtype,
                shape=declared_shape(o, model.info.inputs),
            )
            for o in model.info.outputs
        ),
        compiled=compiled,
        lineage=lineage,
        twin_lineage=twin_lineage,
        saturable=model.info.saturable,
        operators=dict(model.info.operators),
        families=dict(model.info.families),
        signature=model.info.signature,
        unmeasured=model.info.unmeasured,
    )


def declared_shape(output: Any, inputs: Sequence[Any]) -> tuple[int | None, ...] | None:
    """The shape an output must have.

    None where the file does not say, or says it of no inputs in particular (a free axis of theirs
    may change any of the output's).
    """
    if not output.shape or any(-1 in tensor.shape[1:] for tensor in inputs):
        return None
    return tuple(None if n < 0 else n for n in output.shape)


def _changed(path: Path) -> InputError:
    return InputError(
        "E-FILE-CHANGED", "the model file changed while it was being read", where=str(path)
    )


def read_file(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(
            "E-FILE-READ", f"cannot be read: {error.strerror}", where=str(path)
        ) from None


def _keep_tensor(array: Any, artefacts: Artefacts) -> StagedTensor:
    blob = _put(array, artefacts)
    return StagedTensor(
        sha256=blob.sha256, size=blob.size, dtype=str(array.dtype), shape=array.shape
    )


def _keep_set(dataset: Any, artefacts: Artefacts) -> StagedSet:
    return StagedSet(
        n=len(dataset.x),
        x=_put(dataset.x, artefacts).sha256,
        labels=None if dataset.labels is None else _put(dataset.labels, artefacts).sha256,
        slices={name: _put(values, artefacts).sha256 for name, values in dataset.slices.items()},
    )


def _put(array: Any, artefacts: Artefacts) -> Blob:
    from orchestrator.staging.prepare import npy_bytes

    return artefacts.put_bytes(npy_bytes(array))
