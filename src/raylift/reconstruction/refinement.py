"""Refinement of a volume, so that it agrees with its X-rays, by optimisation through the projector.

A box around the cube is optimised, since rays cross more than the cube. The result is the most probable box (maximum a
posteriori) given the X-rays, the network's volume with an uncertainty for each voxel, and the assumption that tissue is
smooth except for edges.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic

import numpy as np
import torch
from torch import Tensor

from raylift.images.hounsfield import WINDOW, hu_to_normalised, normalised_to_hu, normalised_to_mu
from raylift.images.volume import Volume
from raylift.images.xray_set import XraySet
from raylift.reconstruction.iterative import System

ITERATIONS = 20
REFERENCE_PIXELS, REFERENCE_VOXEL_MM = (
    128,
    5.0,
)  # to which the weights below refer; sums over other pixels and voxels are scaled to these
# Standard deviation of an X-ray's noise, as a share of its mean: what voxels of 5 mm lose of a fine scan.
NOISE = 0.02
# Mean absolute error at which only noise is left, as a share of the X-rays' mean.
LEAST_RESIDUAL = 0.005
# In units of the network's window, [0, 1] for [-1000, 1000] HU:
DEVIATION_FLOOR = 0.05  # least standard deviation of a voxel, where the network predicts no uncertainty
CERTAIN = 0.01  # least standard deviation of a voxel, where it predicts one
ALIKE = 2.0  # factor of the predicted uncertainty: neighbours err alike, but are penalised as if independent
MIXED = 0.35  # see `prior_deviation`
TISSUE = 0.55  # soft tissue; bone is not far above
OUTSIDE = 0.5  # standard deviation of a voxel outside of the cube
FALL_MM = 60.0  # distance from the cube at which the values of its faces have fallen to 1/e
GRADIENT_EDGE = 0.01  # smaller gradients are penalised by their square, larger ones by their magnitude
SMOOTHNESS = 6.0  # weight of the gradient's magnitude


@dataclass(frozen=True)
class Refinement:
    """A refined volume, and how much the refinement improved it.

    Errors are those of the whole box, cube and surroundings: the mean absolute difference between its line integrals
    and the X-rays, as a share of the X-rays' mean.

    Args:
        volume: the box's cube in Hounsfield units (z, y, x), float32, within the network's window.
        error_before: of the network's cube with its faces continued outwards.
        error_after: of the refined box; not above `error_before`.
        iterations: number of iterations that led to the volume; 0 if it is the network's own.
    """

    volume: Volume
    error_before: float
    error_after: float
    iterations: int


def refine(
    volume: Volume,
    xrays: XraySet,
    seconds: float = 20.0,
    progress: Callable[[str, int, int], None] = lambda note, done, total: None,
    uncertainty: Volume | None = None,
) -> Refinement:
    """Bring a volume into agreement with its X-rays, as far as its uncertainty allows.

    L-BFGS (Liu & Nocedal 1989) minimises ½ Σ ((A x − y) / (σ ȳ))² + ½ Σ z² + τ Σ ‖∇x‖ over z, where the box x is
    x₀ + s z, clipped to the window. A projects, y are the X-rays with the mean ȳ, σ is `NOISE`, τ is `SMOOTHNESS`, s is
    `ALIKE` times the `uncertainty` or, where there is none, the `prior_deviation` of the start x₀, and ‖∇x‖ is smoothed
    below `GRADIENT_EDGE`. Sums are scaled to `REFERENCE_PIXELS` pixels and voxels of `REFERENCE_VOXEL_MM`. The
    optimisation ends after `ITERATIONS`, when the X-rays are explained except for noise, or at the time limit. It also
    ends when an iteration is further from the X-rays than the start, or is not finite; then the iteration before it is
    the result, or the given volume (clipped) if it was the first.

    Args:
        volume: Hounsfield units (z, y, x) on a cube centred on the isocentre, or on the origin where it is not known.
        xrays: line integrals with their views and geometry.
        seconds: time limit; the iteration that is running then is finished.
        progress: called after each iteration with a note, the number of iterations done and their largest number.
        uncertainty: standard deviation of each voxel of the volume in HU, on its grid.

    Returns:
        The refined volume, on the same grid, and its errors.
    """
    started = monotonic()
    volume = Volume(np.clip(volume.array, *WINDOW), volume.grid)
    system = System(xrays, volume.grid)
    start = surround(volume, system)
    x0 = torch.from_numpy(start)
    s = torch.from_numpy(prior_deviation(start, system))
    if uncertainty is not None:
        s[system.inside] = (
            torch.from_numpy(ALIKE * uncertainty.array / (WINDOW[1] - WINDOW[0])).float().clamp_min(CERTAIN)
        )
    y = torch.from_numpy(system.b)
    scale = max(float(y.mean()), 1e-6)
    pixel_ratio, voxel_ratio = xrays.geometry.pixels / REFERENCE_PIXELS, volume.grid.spacing[0] / REFERENCE_VOXEL_MM
    z = torch.zeros_like(x0, requires_grad=True)

    def box() -> Tensor:
        """Return the box x (z, y, x) in [0, 1]."""
        return (x0 + s * z).clamp(0, 1)

    def residual(x: Tensor) -> Tensor:
        """Return (A x − y) / ȳ, (V, rows, columns)."""
        return (system.A(normalised_to_mu(x[None]))[0] - y) / scale

    def loss() -> Tensor:
        """Compute the loss and its gradient.

        Returns:
            The loss, a scalar.
        """
        optimiser.zero_grad()
        x = box()
        misfit, deviation = 0.5 * (residual(x) / NOISE).square().sum(), 0.5 * z.square().sum()
        # Sums over finer pixels and voxels have more terms; differences of neighbouring finer voxels are smaller.
        total: Tensor = misfit / pixel_ratio**2 + voxel_ratio**3 * deviation
        total = total + voxel_ratio**2 * SMOOTHNESS * _gradient(x).sum()
        total.backward()
        return total

    def error() -> float:
        """Return the mean absolute residual of the box."""
        with torch.no_grad():
            return float(residual(box()).abs().mean())

    before = after = error()
    last, iterations = volume.array, 0
    optimiser = torch.optim.LBFGS([z], max_iter=1, history_size=8, line_search_fn="strong_wolfe",
                                  tolerance_grad=0, tolerance_change=0)  # fmt: skip
    for done in range(1, ITERATIONS + 1):
        if after <= LEAST_RESIDUAL or monotonic() - started >= seconds:
            break
        optimiser.step(loss)
        current = error()
        if not current <= before:  # true for NaN as well
            break
        after, iterations = current, done
        last = normalised_to_hu(box().detach().numpy()[system.inside])
        progress(f"error {after:.1%}", done, ITERATIONS)
    return Refinement(Volume(last, volume.grid), before, after, iterations)


def surround(volume: Volume, system: System) -> np.ndarray:
    """Return the system's box (z, y, x) in [0, 1] around a cube, whose faces continue outwards and fall off to air."""
    cube = hu_to_normalised(volume.array.astype(np.float32))
    padded = np.pad(cube, [(margin, margin) for margin in system.margins], "edge")
    return (padded * np.exp(-_distance(system) / FALL_MM)).astype(np.float32)


def prior_deviation(box: np.ndarray, system: System) -> np.ndarray:
    """Return the standard deviation of each voxel of a box, both (z, y, x) in units of [0, 1].

    For a voxel that may be air or tissue (a border whose position is unknown), a network that minimises the expected
    error predicts a value in between. The variance of a variable that is 0 or t, with mean x, is x (t − x); on patients
    outside of the training, the network's squared error is 0.35 of that, and 0.05² where x is 0 or t.
    """
    mixed = MIXED * np.clip(box * (TISSUE - box), 0, None)
    deviation = np.where(_distance(system) > 0, OUTSIDE, np.sqrt(DEVIATION_FLOOR**2 + mixed))
    return deviation.astype(np.float32)


def _distance(system: System) -> np.ndarray:
    """Return each voxel's distance in mm (z, y, x) from the cube, along the axis where it is largest."""
    beyond = [
        np.maximum(np.maximum(margin - np.arange(size), np.arange(size) - (size - 1 - margin)), 0)
        for margin, size in zip(system.margins, system.shape, strict=True)
    ]
    voxels: np.ndarray = np.maximum.reduce(np.meshgrid(*beyond, indexing="ij"))
    return system.cube.spacing[0] * voxels


def _gradient(x: Tensor) -> Tensor:
    """Return √(|∇x|² + `GRADIENT_EDGE`²) for all voxels of a box (z, y, x) except the last of each axis."""
    along_z, along_y, along_x = x.diff(dim=0)[:, :-1, :-1], x.diff(dim=1)[:-1, :, :-1], x.diff(dim=2)[:-1, :-1]
    return (along_z.square() + along_y.square() + along_x.square() + GRADIENT_EDGE**2).sqrt()
