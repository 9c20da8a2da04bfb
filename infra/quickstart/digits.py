"""Real handwritten digits: who trains, who calibrates, who tests, and the form a net reads."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from sklearn.datasets import load_digits

from infra.quickstart.nets import Floats, Net
from infra.quickstart.records import write_json

Ints = npt.NDArray[np.int64]

SEED: Final = 20_240_917
N_TEST: Final = 1000
N_CALIBRATION: Final = 100


@dataclass(frozen=True)
class Split:
    """Indices into scikit-learn's digits; no index is in two parts."""

    train: Ints
    calibration: Ints
    test: Ints


@dataclass(frozen=True)
class Digits:
    """Every image (n, 8, 8), grey levels 0..16, its label (n,), and the part it belongs to."""

    images: npt.NDArray[np.float64]
    labels: Ints
    split: Split

    def as_input(self, side: int) -> Floats:
        """All images as float32 NHWC in 0..1, each pixel repeated to fill the larger side.

        Every value is k/16, so exact on every CPU, and repeated pixels compress well.
        """
        factor = side // self.images.shape[1]
        large = self.images.repeat(factor, axis=1).repeat(factor, axis=2)
        return (large[..., None] / 16).astype(np.float32)


def split_indices(count: int) -> Split:
    """Shuffle once with a fixed seed, then cut: test first, calibration next, the rest trains."""
    order = np.random.default_rng(SEED).permutation(count)
    test, calibration, train = np.split(order, [N_TEST, N_TEST + N_CALIBRATION])
    return Split(*(np.sort(part).astype(np.int64) for part in (train, calibration, test)))


def load() -> Digits:
    """The digits that come with scikit-learn, split."""
    source = load_digits()
    labels = source.target.astype(np.int64)
    return Digits(source.images, labels, split_indices(len(labels)))


def with_shifts(x: Floats, y: Ints, net: Net) -> tuple[Floats, Ints]:
    """The images and copies of each moved a few pixels, empty where nothing moved in."""
    rng = np.random.default_rng(SEED)
    margin = net.max_shift
    padded = np.pad(x, ((0, 0), (margin, margin), (margin, margin), (0, 0)))
    copies = [x]
    for _ in range(net.shifted_copies):
        corners = rng.integers(0, 2 * margin + 1, size=(len(x), 2))
        copies.append(
            np.stack(
                [
                    image[r : r + net.side, c : c + net.side]
                    for image, (r, c) in zip(padded, corners, strict=True)
                ]
            )
        )
    return np.concatenate(copies), np.tile(y, len(copies))


def write_images(out: Path, digits: Digits, x: Floats) -> None:
    """The held-out images of `x` (all digits, NHWC), their labels, and their indices as ids."""
    test = digits.split.test
    _, height, width, _ = x.shape
    np.savez_compressed(
        out / f"digits_{height}x{width}.npz", x=x[test], y=digits.labels[test], id=test
    )


def write_split(out: Path, digits: Digits) -> None:
    """SPLIT.json: which index of the source is in which part."""
    split = digits.split
    write_json(
        out / "SPLIT.json",
        {
            "source": "sklearn.datasets.load_digits",
            "count": len(digits.labels),
            "seed": SEED,
            "train": split.train.tolist(),
            "calibration": split.calibration.tolist(),
            "test": split.test.tolist(),
        },
    )
