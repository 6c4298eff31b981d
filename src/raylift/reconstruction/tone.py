"""Calibration of tone curves by the views' agreement and by the volume.

Line integrals of pictures that were made for a display are known up to a monotone function. What is known of it: the
curve that was recognised from the picture, the start; that all views around the cranio-caudal axis have the same sum of
line integrals in a row, the attenuation of that slice of the patient (the zeroth of the Helgason-Ludwig conditions);
and that a volume computed from the X-rays has nearly the density of tissue even where they are wrong, so that its
projections are nearer to the truth than they are.

With hat functions φ of a picture's ranks, its line integrals are x = x₀ exp(φ δ). Gauss-Newton steps minimise, for all
pictures together,

    Σ δᵀ Σ⁻¹ δ  +  Σ (log s − mean log s)² / σ²  +  Σ ‖x − t‖² / τ²

where s are the sums of the rows of each view, compared with their mean over the views, and t is what the volume's
projections y say the image is: t = x + (y − x) / `FOLLOWED`, since the volume follows its X-rays by about a half.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from raylift.images.hounsfield import normalised_to_mu
from raylift.images.volume import Volume
from raylift.images.xray_set import XraySet
from raylift.reconstruction.iterative import System
from raylift.reconstruction.refinement import surround
from raylift.reconstruction.reprojection import crossing_rays

ROUNDS = 2  # of volume and calibration
KNOTS = 6  # hat functions, at equidistant ranks of what is no air
COMMON, LOCAL = 0.2, 0.12  # standard deviations of δ: of what a picture's knots share, and of each beside that
FOLLOWED = 0.5
PROJECTION_NOISE, PROJECTION_PARTS = (
    0.08,
    40,
)  # standard deviation τ as a share of the mean; independent parts of a view
ROW_NOISE, ROW_PARTS = 0.04, 25  # standard deviation σ of a row's sum; number of rows that are independent
ROW_CUT = 0.03  # addition to σ for each unit of the line integrals where a row ends: the patient is cut off there
AIR_BELOW = 0.3  # line integrals that are kept as they are
FULL_ROWS = 0.3  # share of the largest sum from which rows are compared
STEPS = 3  # of Gauss and Newton
MOST = 1.0  # |φ δ|


class ToneCalibration:
    """The calibration of the pictures in a set of X-rays.

    Args:
        xrays: line integrals; those with a tone curve are pictures.
    """

    def __init__(self, xrays: XraySet) -> None:
        self.start = xrays
        self.pictures = [k for k, tone in enumerate(xrays.tones) if tone is not None]
        self.hats = [_hats(xrays.images[k]) for k in self.pictures]
        distance = np.subtract.outer(np.arange(KNOTS), np.arange(KNOTS))
        covariance = COMMON**2 + LOCAL**2 * np.exp(-0.5 * distance**2) + 1e-6 * np.eye(KNOTS)
        self.precision = np.kron(np.eye(len(self.pictures)), np.linalg.inv(covariance))
        self.delta = np.zeros((len(self.pictures), KNOTS))

    def xrays(self) -> XraySet:
        """Return the X-rays as they are calibrated now, with their tone curves."""
        images, tones = list(self.start.images), list(self.start.tones)
        for number, k in enumerate(self.pictures):
            tone, before = tones[k], images[k]
            images[k] = _rising(self._image(number), before)
            tones[k] = tone and tone.followed_by(before, images[k])
        return replace(self.start, images=np.stack(images), tones=tuple(tones))

    def solve(self, projections: np.ndarray | None = None, crossing: np.ndarray | None = None) -> XraySet:
        """Estimate δ.

        Args:
            projections: of a volume that was computed from the X-rays as they are calibrated now,
                (N, rows, columns); None before there is one.
            crossing: mask of the rays on which they are compared.

        Returns:
            The calibrated X-rays.
        """
        targets = None
        if projections is not None:
            current = self.xrays().images
            targets = current + (projections - current) / FOLLOWED
        for _ in range(STEPS):
            flat = self.delta.ravel()
            matrix, vector = self.precision.copy(), -self.precision @ flat
            self._add_rows(matrix, vector)
            if targets is not None and crossing is not None:
                self._add_projections(matrix, vector, targets, crossing)
            self.delta += np.linalg.solve(matrix, vector).reshape(self.delta.shape)
        return self.xrays()

    def _image(self, number: int) -> np.ndarray:
        """Return x₀ exp(φ δ) of a picture (rows, columns)."""
        exponent = np.clip(self.hats[number] @ self.delta[number], -MOST, MOST)
        image: np.ndarray = self.start.images[self.pictures[number]] * np.exp(exponent)
        return image

    def _add_rows(self, matrix: np.ndarray, vector: np.ndarray) -> None:
        """Add the normal equations of the sums of rows."""
        images = self.start.images.astype(float)
        slopes = np.zeros((len(images), images.shape[1], vector.size))  # of the sums: views, rows, δ
        for number, k in enumerate(self.pictures):
            images[k] = self._image(number)
            own = slice(number * KNOTS, (number + 1) * KNOTS)
            slopes[k, :, own] = np.einsum("rck,rc->rk", self.hats[number], images[k])
        sums = images.sum(2)
        full = sums.mean(0) > FULL_ROWS * sums.mean(0).max()
        sums, slopes = np.maximum(sums[:, full], 1e-6), slopes[:, full]
        cut = np.maximum(images[:, full, 0], images[:, full, -1]).max(0)
        weight = ROW_PARTS / max(int(full.sum()), 1) / (ROW_NOISE + ROW_CUT * cut) ** 2
        logarithms, slopes = np.log(sums), slopes / sums[..., None]
        for residual, slope in zip(logarithms - logarithms.mean(0), slopes - slopes.mean(0), strict=True):
            matrix += slope.T @ (weight[:, None] * slope)
            vector -= slope.T @ (weight * residual)

    def _add_projections(
        self, matrix: np.ndarray, vector: np.ndarray, targets: np.ndarray, crossing: np.ndarray
    ) -> None:
        """Add the normal equations of the volume's projections."""
        for number, k in enumerate(self.pictures):
            image = self._image(number)
            compared = crossing[k] & (self.start.images[k] > AIR_BELOW)
            if not compared.any():
                continue
            slope = self.hats[number][compared] * image[compared][:, None]
            weight = PROJECTION_PARTS / compared.sum() / (PROJECTION_NOISE * image[compared].mean()) ** 2
            own = slice(number * KNOTS, (number + 1) * KNOTS)
            matrix[own, own] += weight * slope.T @ slope
            vector[own] += weight * slope.T @ (targets[k] - image)[compared]


def project_with_surroundings(volume: Volume, xrays: XraySet) -> tuple[np.ndarray, np.ndarray]:
    """Return the projections of a volume that continues beyond its cube, and the mask of the rays across the cube.

    Both are (N, rows, columns).
    """
    system = System(xrays, volume.grid)
    with torch.no_grad():
        projections = system.A(torch.from_numpy(normalised_to_mu(surround(volume, system)))[None])[0].numpy()
    return projections, crossing_rays(volume.grid, xrays)


def disagreement(xrays: XraySet, projections: np.ndarray, crossing: np.ndarray) -> float:
    """Return the mean absolute difference between pictures and projections, as a share of the pictures' mean.

    Args:
        xrays: line integrals; those with a tone curve are pictures.
        projections: see `project_with_surroundings`.
        crossing: likewise.
    """
    shares = [
        np.abs(projection - image)[compared].sum() / max(float(image[compared].sum()), 1e-6)
        for image, tone, projection, compared in zip(xrays.images, xrays.tones, projections, crossing, strict=True)
        if tone is not None
    ]
    return float(np.mean(shares))


def _hats(image: np.ndarray) -> np.ndarray:
    """Return the hat functions (rows, columns, KNOTS) of an image's ranks; 0 in air."""
    tissue = image > AIR_BELOW
    ranks = np.searchsorted(np.sort(image, axis=None), image) / image.size
    air = 1 - tissue.mean()
    position = np.clip((ranks - air) / max(1 - air, 1e-6), 0, 1) * (KNOTS - 1)
    hats: np.ndarray = np.maximum(1 - np.abs(position[..., None] - np.arange(KNOTS)), 0) * tissue[..., None]
    return hats


def _rising(changed: np.ndarray, before: np.ndarray) -> np.ndarray:
    """Return an image whose values do not fall where those of the image before rise, float32."""
    order = np.argsort(before, axis=None, kind="stable")
    rising = np.empty(changed.size, np.float32)
    rising[order] = np.maximum.accumulate(changed.ravel()[order])
    return rising.reshape(changed.shape)
