"""Distance of X-rays from the training's, by a probabilistic PCA of small images.

Given the angle of its view, an image of 8 × 8 pixels is modelled as normally distributed. The mean depends on the angle
by circular harmonics of order 0 to 2; the covariance has a number of principal directions and equal noise in all others
(Tipping & Bishop 1999). Distances are relative to those of patients who were left out of the fit: the largest of these
is 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from raylift.errors import BadInput
from raylift.geometry import View
from raylift.storage.atomic import atomic_write
from raylift.storage.paths import size_of

EDGE_PIXELS = 8  # pixels along an edge of the small images
PRINCIPAL_DIRECTIONS = 48  # principal directions of the covariance
VARIANCE_FLOOR = 1e-3  # least variance in a direction, as a share of the mean variance
QUANTILE = 0.95  # of the distances of a patient's X-rays; the largest over the patients left out counts as 1
MOST_DETECTOR_BYTES = 2**24  # of a file that is read
OOD_THRESHOLD = 1.0  # relative distance above which X-rays are out of distribution


@dataclass(frozen=True)
class OODDetector:
    """A model of what the X-rays of the training look like, which measures how far others are from them.

    Args:
        mean: coefficients (5, EDGE_PIXELS²) of the angle's harmonics.
        directions: principal directions, orthonormal, (PRINCIPAL_DIRECTIONS, EDGE_PIXELS²).
        deviations: standard deviations (PRINCIPAL_DIRECTIONS,) along the principal directions.
        noise: standard deviation in each of the other directions.
        scale: root mean squared distance per dimension that counts as 1.
    """

    mean: np.ndarray
    directions: np.ndarray
    deviations: np.ndarray
    noise: float
    scale: float = 1.0

    def distances(self, images: np.ndarray, views: Sequence[View]) -> np.ndarray:
        """Return the relative distances (N,) of X-rays from those of the training.

        Args:
            images: line integrals (N, rows, columns), row 0 superior.
            views: one per image.
        """
        off = _small(images, views) - _harmonics(views) @ self.mean
        along = off @ self.directions.T
        rest = np.square(off).sum(1) - np.square(along).sum(1)
        squared = np.square(along / self.deviations).sum(1) + np.maximum(rest, 0) / self.noise**2
        result: np.ndarray = np.sqrt(squared / off.shape[1]) / self.scale
        return result

    @classmethod
    def fit(cls, images: np.ndarray, views: Sequence[View], patients: Sequence[int]) -> OODDetector:
        """Return a detector fitted to X-rays.

        Args:
            images: line integrals (N, rows, columns), row 0 superior.
            views: one per image.
            patients: number of the patient of each image; at least two patients.
        """
        patient_of, views = np.asarray(patients), list(views)
        left_out = []
        for patient in np.unique(patient_of):
            own = np.flatnonzero(patient_of == patient)
            others = np.flatnonzero(patient_of != patient)
            model = cls._fit(images[others], [views[k] for k in others])
            left_out.append(np.quantile(model.distances(images[own], [views[k] for k in own]), QUANTILE))
        model = cls._fit(images, views)
        return cls(model.mean, model.directions, model.deviations, model.noise, float(np.max(left_out)))

    @classmethod
    def _fit(cls, images: np.ndarray, views: Sequence[View]) -> OODDetector:
        """Return a detector fitted to X-rays (N, rows, columns), with distances that are not scaled."""
        small, waves = _small(images, views), _harmonics(views)
        # Ridge regression, since a recipe of two views does not determine five harmonics.
        mean = np.linalg.solve(waves.T @ waves + 1e-3 * np.eye(waves.shape[1]), waves.T @ small)
        _, values, directions = np.linalg.svd(small - waves @ mean, full_matrices=False)
        variances = np.square(values) / len(small)
        kept = min(PRINCIPAL_DIRECTIONS, len(variances) - 1)
        rest, least = (
            variances[kept:].sum() / (small.shape[1] - kept),
            VARIANCE_FLOOR * variances.sum() / small.shape[1],
        )
        noise = math.sqrt(max(rest, least))
        return cls(mean, directions[:kept], np.sqrt(np.maximum(variances[:kept], noise**2)), noise)

    def save(self, path: Path) -> None:
        """Write the detector to a safetensors file."""
        arrays = {"mean": self.mean, "directions": self.directions, "deviations": self.deviations}
        scalars = {"noise": np.array(self.noise), "unit": np.array(self.scale)}
        with atomic_write(path) as temporary:
            save_file({name: array.astype(np.float32) for name, array in (arrays | scalars).items()}, temporary)

    @classmethod
    def load(cls, path: Path) -> OODDetector:
        """Read a detector from a file that `save` wrote.

        Returns:
            The detector.

        Raises:
            BadInput: the file is damaged.
        """
        try:
            arrays = _load_arrays(path)
            matrices = (arrays["mean"], arrays["directions"], arrays["deviations"])
            return cls(*matrices, float(arrays["noise"]), float(arrays["unit"]))
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise BadInput(path, f"damaged ({str(error).splitlines()[0]})", "copy it again") from None


def _load_arrays(path: Path) -> dict[str, np.ndarray]:
    """Read the arrays of a detector's file.

    Returns:
        The arrays by name, float64: mean (5, EDGE_PIXELS²), directions (n, EDGE_PIXELS²), deviations (n,), noise and
        unit (scalars).

    Raises:
        ValueError: the file is too large, or an array has another shape or values that it cannot have.
    """
    if size_of(path) > MOST_DETECTOR_BYTES:
        raise ValueError("too large")
    arrays = {name: array.astype(np.float64) for name, array in load_file(path).items()}
    kept, size = len(arrays["deviations"]), EDGE_PIXELS**2
    shapes = {"mean": (5, size), "directions": (kept, size), "deviations": (kept,), "noise": (), "unit": ()}
    for name, shape in shapes.items():
        if arrays[name].shape != shape or not np.isfinite(arrays[name]).all():
            raise ValueError(f"{name} is no finite array of {shape}")
    if min(arrays["deviations"].min(initial=1), arrays["noise"], arrays["unit"]) <= 0:
        raise ValueError("a deviation is not positive")
    return arrays


def _small(images: np.ndarray, views: Sequence[View]) -> np.ndarray:
    """Return X-rays (N, rows, columns) averaged to (N, EDGE_PIXELS²), their columns along u without mirroring."""
    unmirrored = [image[:, ::-1] if view.mirrored else image for image, view in zip(images, views, strict=True)]
    averaged = F.interpolate(torch.from_numpy(np.stack(unmirrored)).float()[None], (EDGE_PIXELS,) * 2, mode="area")
    return averaged[0].flatten(1).double().numpy()


def _harmonics(views: Sequence[View]) -> np.ndarray:
    """Return the harmonics (N, 5) of the views' angles: 1, cosine and sine of the angle and of twice the angle."""
    angles = np.radians([view.angle for view in views])
    return np.stack([np.ones_like(angles), *(wave(m * angles) for m in (1, 2) for wave in (np.cos, np.sin))], 1)
