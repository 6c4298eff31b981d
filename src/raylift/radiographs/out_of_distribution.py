"""How far X-rays are from those that a network has learned from: a probabilistic PCA of small images.

An image of 8 × 8 pixels, given the view's angle, is normal around a mean that turns with the angle: its first circular
harmonics. The covariance is that of the strongest directions and of equal noise in all others (Tipping & Bishop 1999).
Distances are relative to those of patients who were left out of the fit: 1 is as far as the furthest of them.
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

EDGE = 8  # pixels of the small images
DIRECTIONS = 48  # of the covariance
FLOOR = 1e-3  # least variance in a direction, as a share of the mean one
QUANTILE = 0.95  # of the distances of a patient's X-rays; the largest of the patients left out counts as 1
MOST_BYTES = 2**24  # of a file
OOD_THRESHOLD = 1.0  # relative distance from which X-rays are called unlike those of the training


@dataclass(frozen=True)
class OODDetector:
    """What X-rays of the training look like.

    Args:
        mean: coefficients (5, EDGE²) of the harmonics of the angle.
        directions: orthonormal, (DIRECTIONS, EDGE²).
        deviations: standard deviations (DIRECTIONS,) along them.
        noise: standard deviation in each of the other directions.
        unit: root mean squared distance per dimension that counts as 1.
    """

    mean: np.ndarray
    directions: np.ndarray
    deviations: np.ndarray
    noise: float
    unit: float = 1.0

    def distances(self, images: np.ndarray, views: Sequence[View]) -> np.ndarray:
        """Relative distance (N,) of X-rays (N, rows, columns), line integrals of the views, row 0 superior."""
        off = _small(images, views) - _harmonics(views) @ self.mean
        along = off @ self.directions.T
        rest = np.square(off).sum(1) - np.square(along).sum(1)
        squared = np.square(along / self.deviations).sum(1) + np.maximum(rest, 0) / self.noise**2
        result: np.ndarray = np.sqrt(squared / off.shape[1]) / self.unit
        return result

    @classmethod
    def fit(cls, images: np.ndarray, views: Sequence[View], patients: Sequence[int]) -> OODDetector:
        """From X-rays (N, rows, columns) of some views and patients (N each), of at least two patients."""
        patients_of, views = np.asarray(patients), list(views)
        left_out = []
        for patient in np.unique(patients_of):
            own = np.flatnonzero(patients_of == patient)
            others = np.flatnonzero(patients_of != patient)
            model = cls._fit(images[others], [views[k] for k in others])
            left_out.append(np.quantile(model.distances(images[own], [views[k] for k in own]), QUANTILE))
        model = cls._fit(images, views)
        return cls(model.mean, model.directions, model.deviations, model.noise, float(np.max(left_out)))

    @classmethod
    def _fit(cls, images: np.ndarray, views: Sequence[View]) -> OODDetector:
        small, waves = _small(images, views), _harmonics(views)
        # A ridge, since a recipe of two views does not determine five harmonics.
        mean = np.linalg.solve(waves.T @ waves + 1e-3 * np.eye(waves.shape[1]), waves.T @ small)
        _, values, directions = np.linalg.svd(small - waves @ mean, full_matrices=False)
        variances = np.square(values) / len(small)
        kept = min(DIRECTIONS, len(variances) - 1)
        rest, least = variances[kept:].sum() / (small.shape[1] - kept), FLOOR * variances.sum() / small.shape[1]
        noise = math.sqrt(max(rest, least))
        return cls(mean, directions[:kept], np.sqrt(np.maximum(variances[:kept], noise**2)), noise)

    def save(self, path: Path) -> None:
        """Write a safetensors file."""
        arrays = {"mean": self.mean, "directions": self.directions, "deviations": self.deviations}
        scalars = {"noise": np.array(self.noise), "unit": np.array(self.unit)}
        with atomic_write(path) as temporary:
            save_file({name: array.astype(np.float32) for name, array in (arrays | scalars).items()}, temporary)

    @classmethod
    def load(cls, path: Path) -> OODDetector:
        """Read what `save` wrote. Raises BadInput if it is damaged."""
        try:
            if size_of(path) > MOST_BYTES:
                raise ValueError("too large")
            read = {name: array.astype(np.float64) for name, array in load_file(path).items()}
            kept, size = len(read["deviations"]), EDGE**2
            shapes = {"mean": (5, size), "directions": (kept, size), "deviations": (kept,), "noise": (), "unit": ()}
            for name, shape in shapes.items():
                if read[name].shape != shape or not np.isfinite(read[name]).all():
                    raise ValueError(f"{name} is no finite array of {shape}")
            if min(read["deviations"].min(initial=1), read["noise"], read["unit"]) <= 0:
                raise ValueError("a deviation is not positive")
            arrays = (read["mean"], read["directions"], read["deviations"])
            return cls(*arrays, float(read["noise"]), float(read["unit"]))
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise BadInput(path, f"damaged ({str(error).splitlines()[0]})", "copy it again") from None


def _small(images: np.ndarray, views: Sequence[View]) -> np.ndarray:
    """(N, rows, columns) → (N, `EDGE`²), columns along u of the view that is not mirrored."""
    upright = [image[:, ::-1] if view.mirrored else image for image, view in zip(images, views, strict=True)]
    averaged = F.interpolate(torch.from_numpy(np.stack(upright)).float()[None], (EDGE, EDGE), mode="area")
    return averaged[0].flatten(1).double().numpy()


def _harmonics(views: Sequence[View]) -> np.ndarray:
    """(N, 5): 1, cosine and sine of the angle, and of twice the angle."""
    angles = np.radians([view.angle for view in views])
    return np.stack([np.ones_like(angles), *(wave(m * angles) for m in (1, 2) for wave in (np.cos, np.sin))], 1)
