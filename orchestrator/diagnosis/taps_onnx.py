"""An ONNX file and its parent on one device, layer by layer, under ONNX Runtime.

Of the file only the graph that the device's optimiser makes of it is tapped, and its answer has to
be the ordinary one, bit for bit. The parent runs as it is written, with all its tensors out: its
arithmetic is what the file approximates, and no quantised kernel is chosen in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from orchestrator.diagnosis.pair import Side, Trial, Tried, must
from orchestrator.diagnosis.search_onnx import reproduced, saved_graph
from orchestrator.diagnosis.taps import Place, Seen, reals, rounded
from orchestrator.models import surgery
from orchestrator.models.graph import MOVES, Array, Lattice, NotLocalisableError, Piece
from orchestrator.models.surgery import Twinned

Tensors = dict[str, Array]


class OnnxSubject:
    """A `taps.Subject`."""

    def __init__(self, model: bytes, parent: bytes, side: Side) -> None:
        self._model, self._side, self.row = model, side, side.name
        self._fp32 = parent
        self._parent = self._tapped = Piece(b"", (), ())
        self._sites: _Sites | None = None

    def see(self, inputs: Sequence[Array], golden: Sequence[Array]) -> list[Seen]:
        """The first time, what is tapped is checked, and found out what of it has a twin."""
        given, fp32 = tuple(inputs), tuple(golden)
        if self._sites is not None:
            return self._seen(self._sites, *self._tensors(given, fp32)[:2])
        trial = Trial("whole", self._model, given, graph=True)
        ordinary = must(self._side.run([trial])[0], self._side, "the whole model")
        graph = saved_graph(ordinary, self._side)
        self._tapped, self._parent = surgery.tap_optimised(graph, self._fp32)
        whole, real, ran = self._tensors(given, fp32)
        reproduced(ran, ordinary, self._side)
        forms = {name: (str(x.dtype), x.shape[1:]) for name, x in whole.items()}
        shapes = {name: x.shape[1:] for name, x in real.items()}
        found = surgery.twinned(self._model, graph, self._fp32, forms, shapes)
        self._tapped, self._parent = found.tapped, found.parent
        self._sites = _Sites(found, whole, real)
        return self._seen(self._sites, whole, real)

    def _tensors(
        self, given: tuple[Array, ...], golden: tuple[Array, ...]
    ) -> tuple[Tensors, Tensors, Tried]:
        """Of the model and of its parent, and the model's own answer."""
        parent = Trial("parent", self._parent.model, golden)
        tapped = Trial("tapped", self._tapped.model, given)
        ran = self._side.run([parent, tapped], optimise=False)
        must(ran[0], self._side, "the FP32 parent with its tensors out")
        must(ran[1], self._side, "its plan with its tensors out")
        real: Tensors = dict(zip(self._parent.inputs, golden, strict=True))
        real |= dict(zip(self._parent.outputs, ran[0].outputs, strict=True))
        whole: Tensors = dict(zip(self._tapped.inputs, given, strict=True))
        whole |= dict(zip(self._tapped.outputs, ran[1].outputs, strict=True))
        return whole, real, ran[1]

    def _seen(self, sites: _Sites, whole: Tensors, real: Tensors) -> list[Seen]:
        alone, meant = self._alone(sites, real), self._meant(sites, real)
        return [
            Seen(
                site.place,
                real[site.place.twin],
                sites.as_parent(site.tensor, whole[site.tensor]),
                alone.get(site.made),
                meant.get(site.made),
            )
            for site in sites.all
        ]

    def _alone(self, sites: _Sites, real: Tensors) -> Tensors:
        """What operators make of golden inputs, in the layout of the parent and as its codes.

        Where the codes are made by an operator of their own, that is part of the layer.
        """
        able = [(site, piece) for site in sites.all if (piece := site.piece) is not None]
        trials = [
            Trial(str(i), piece.model, tuple(sites.golden(t, real) for t in piece.inputs))
            for i, (_, piece) in enumerate(able)
        ]
        found: Tensors = {}
        for (site, _), tried in zip(able, self._side.run(trials, optimise=False), strict=True):
            if tried.error is None:
                made = sites.as_parent(site.made, tried.outputs[0])
                if made.dtype != sites.dtypes[site.tensor]:
                    made = rounded(made, sites.dtypes[site.tensor], site.place.lattice)
                found[site.made] = made
        return found

    def _meant(self, sites: _Sites, real: Tensors) -> Tensors:
        """What the file's own numbers make of golden inputs, in the layout of the parent."""
        able = [site for site in sites.all if site.meant is not None]
        trials = [
            Trial(str(i), site.meant.model, tuple(sites.real(t, real) for t in site.meant.inputs))
            for i, site in enumerate(able)
            if site.meant is not None
        ]
        ran = zip(able, self._side.run(trials, optimise=False), strict=True)
        return {site.made: one.outputs[0] for site, one in ran if one.error is None}


@dataclass(frozen=True, eq=False)
class _Site:
    """A place of the parent, and what stands for it in the file.

    ``made``: the tensor its operator makes; ``tensor``: that or its codes. ``piece``: the operator
    alone, if golden inputs are known for it; ``meant``: as the file means it, if it says so.
    """

    place: Place
    made: str
    tensor: str
    piece: Piece | None = None
    meant: Piece | None = None


class _Sites:
    """Where the model and its parent can be compared, and how their tensors correspond."""

    def __init__(self, found: Twinned, whole: Tensors, real: Tensors) -> None:
        """Raises NotLocalisableError."""
        self._means = found.meanings
        self.dtypes = {name: x.dtype for name, x in whole.items()}
        self._last = {
            t
            for t, m in self._means.stands_for.items()
            if self._channels_last(t, whole[t], real[m])
        }
        self.all = self._found(found)
        if not self.all:
            raise NotLocalisableError("no tensor of the FP32 parent has a name that the file knows")

    def as_parent(self, tensor: str, values: Array) -> Array:
        return np.moveaxis(values, -1, 2) if tensor in self._last else values

    def golden(self, tensor: str, real: Tensors) -> Array:
        """The parent's values as the tensor holds them: on its lattice, in its layout."""
        codes = self._means.dequantised.get(tensor, tensor)
        found = self._rounded(codes, tensor, real) if codes == tensor else self.real(tensor, real)
        return np.moveaxis(found, 2, -1) if tensor in self._last else found

    def real(self, tensor: str, real: Tensors) -> Array:
        """The parent's values, as far as the tensor can hold them, in the parent's layout."""
        codes = self._means.dequantised.get(tensor, tensor)
        found, lattice = self._rounded(codes, tensor, real), self._means.lattices.get(codes)
        return found if lattice is None else reals(found, lattice)

    def _rounded(self, codes: str, tensor: str, real: Tensors) -> Array:
        found, lattice = real[self._means.stands_for[tensor]], self._means.lattices.get(codes)
        return found if lattice is None else rounded(found, self.dtypes[codes], lattice)

    def _found(self, file: Twinned) -> list[_Site]:
        read, pieces = file.graph, file.alone
        means = self._means.stands_for
        codes: dict[str, str] = {}
        for t in (t for operator in read.operators for t in operator.outputs):
            if t in means and t in self._means.lattices:
                codes.setdefault(means[t], t)
        sites: dict[str, _Site] = {}
        for name in read.inputs:
            if name in means and (tensor := codes.get(means[name])):
                place = Place(None, "input", name, means[name], self._means.lattices[tensor])
                sites[means[name]] = _Site(place, name, tensor)
        for i, operator in enumerate(read.operators):
            made = operator.outputs[0]
            meaning = means.get(made)
            if operator.kind in MOVES or meaning is None or meaning in sites:
                continue
            tensor = made if self._known(made) and self._coded(made) else codes.get(meaning, made)
            if self._known(tensor):
                able = pieces[i].inputs and all(
                    t in means and self._known(t) for t in pieces[i].inputs
                )
                lattice = self._means.lattices.get(tensor)
                place = Place(i, operator.kind, operator.name, meaning, lattice)
                alone = pieces[i] if able else None
                meant = file.meant[i] if able and file.meant[i].outputs else None
                sites[meaning] = _Site(place, made, tensor, alone, meant)
        return list(sites.values())

    def _coded(self, tensor: str) -> bool:
        return self.dtypes[tensor].kind in "iu"

    def _known(self, tensor: str) -> bool:
        """Whether its real values are: integers need a lattice."""
        return not self._coded(tensor) or tensor in self._means.lattices

    def _channels_last(self, tensor: str, mine: Array, real: Array) -> bool:
        """Where shapes do not say, what is nearer to the parent."""
        moved = np.moveaxis(mine, -1, 2) if mine.ndim > 3 else mine
        if mine.shape != moved.shape or mine.ndim < 4:
            return mine.shape != real.shape
        lattice = self._means.lattices.get(tensor, Lattice(1.0, 0))
        gaps = [
            np.abs((x.astype(np.float64) - lattice.zero_point) * lattice.scale - real).sum()
            for x in (mine, moved)
        ]
        return bool(gaps[1] < gaps[0])
