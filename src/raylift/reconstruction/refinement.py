"""A volume made to agree with the X-rays it came from, by optimisation through the projector.

The unknown is a box around the cube, since rays cross more than the cube. It is the most probable one (maximum a
posteriori) given three things: the X-rays, the network's volume with an uncertainty for each voxel, and that tissue
is smooth but for edges.
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
PIXELS, VOXEL_MM = 128, 5.0  # for which the prices below are meant; others are weighted as if they were so many
# Standard deviation of an X-ray, as a share of its mean: what voxels of 5 mm leave of a fine scan.
NOISE = 0.02
# Mean absolute error at which there is nothing but noise left, as a share of the X-rays' mean.
EXPLAINED = 0.005
# In units of the network's window, [0, 1] for [-1000, 1000] HU:
FLOOR = 0.05  # standard deviation of a voxel that the network is sure of, where it does not say so itself
CERTAIN = 0.01  # least one where it does
ALIKE = 2.0  # factor of that: neighbours are off together, and are priced as if each were on its own
MIXED = 0.35  # see `prior_deviation`
TISSUE = 0.55  # soft tissue, from which bone is not far
OUTSIDE = 0.5  # standard deviation of a voxel outside of the cube
FALL_MM = 60.0  # distance from the cube at which what its faces show has fallen to 1/e
EDGE = 0.01  # gradients smaller than this are priced by their square, others by their magnitude
SMOOTHNESS = 6.0  # price of the gradient's magnitude


@dataclass(frozen=True)
class Refined:
    """A refined volume and its account.

    Errors are those of the whole box, cube and surroundings: the mean absolute difference of its line integrals and
    the X-rays as a share of their mean.

    Args:
        volume: the box's cube in Hounsfield units (z, y, x), float32, within the network's window.
        error_before: with the network's cube, its faces repeated outwards.
        error_after: with the refined box; not above `error_before`.
        iterations: how many the volume has seen; 0 if it is the network's own.
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
) -> Refined:
    """Bring a volume into agreement with its X-rays, as far as its uncertainty allows.

    Minimises ½ Σ ((A x − y) / (σ ȳ))² + ½ Σ z² + τ Σ ‖∇x‖ over z by L-BFGS (Liu & Nocedal 1989), where the box x is
    x₀ + s z, clipped to the window. A projects, y are the X-rays with the mean ȳ, σ is `NOISE`, s is `ALIKE` times the
    `uncertainty` or, where that is not given, the `prior_deviation` of the start x₀, and ‖∇x‖ is smoothed below `EDGE`;
    sums count as over `PIXELS` pixels and voxels of `VOXEL_MM`. It ends after `ITERATIONS`, where X-rays are explained
    but for noise, at the time limit, or where an iteration ends further from the X-rays than the start, or not finite:
    then the one before it counts, and before the first the volume as it was given, clipped.

    Args:
        volume: Hounsfield units (z, y, x) on a cube centred on the isocentre, or on the origin where it is not known.
        xrays: line integrals with their views and unit.
        seconds: time limit; the iteration that runs when it is reached is finished.
        progress: called after each iteration with a note, how many are done, and how many there are at most.
        uncertainty: standard deviation of each voxel of the volume in HU, on its grid.
    """
    begun = monotonic()
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
    pixel_ratio, voxel_ratio = xrays.geometry.pixels / PIXELS, volume.grid.spacing[0] / VOXEL_MM
    z = torch.zeros_like(x0, requires_grad=True)

    def box() -> Tensor:
        return (x0 + s * z).clamp(0, 1)

    def residual(x: Tensor) -> Tensor:
        return (system.A(normalised_to_mu(x[None]))[0] - y) / scale

    def loss() -> Tensor:
        optimiser.zero_grad()
        x = box()
        misfit, unlikely = 0.5 * (residual(x) / NOISE).square().sum(), 0.5 * z.square().sum()
        # Sums over finer pixels and voxels have more members; a step between finer voxels is smaller.
        total: Tensor = misfit / pixel_ratio**2 + voxel_ratio**3 * unlikely
        total = total + voxel_ratio**2 * SMOOTHNESS * _gradient(x).sum()
        total.backward()
        return total

    def error() -> float:
        with torch.no_grad():
            return float(residual(box()).abs().mean())

    before = after = error()
    last, iterations = volume.array, 0
    optimiser = torch.optim.LBFGS([z], max_iter=1, history_size=8, line_search_fn="strong_wolfe",
                                  tolerance_grad=0, tolerance_change=0)  # fmt: skip
    for done in range(1, ITERATIONS + 1):
        if after <= EXPLAINED or monotonic() - begun >= seconds:
            break
        optimiser.step(loss)
        reached = error()
        if not reached <= before:  # or not a number
            break
        after, iterations = reached, done
        last = normalised_to_hu(box().detach().numpy()[system.inside])
        progress(f"error {after:.1%}", done, ITERATIONS)
    return Refined(Volume(last, volume.grid), before, after, iterations)


def surround(volume: Volume, system: System) -> np.ndarray:
    """The system's box (z, y, x) in [0, 1] with a cube in it, whose faces are repeated outwards and fall to air."""
    cube = hu_to_normalised(volume.array.astype(np.float32))
    padded = np.pad(cube, [(margin, margin) for margin in system.margins], "edge")
    return (padded * np.exp(-_distance(system) / FALL_MM)).astype(np.float32)


def prior_deviation(box: np.ndarray, system: System) -> np.ndarray:
    """Standard deviation of each voxel of a box, both (z, y, x) in units of [0, 1].

    A network that minimises the expected error says for a voxel that may be air or tissue (a border whose place is not
    known) something in between. The variance of a variable that is 0 or t with the mean x is x (t − x); on
    patients not seen, the network's squared error is 0.35 of that, and 0.05² where it is 0 or t.
    """
    mixed = MIXED * np.clip(box * (TISSUE - box), 0, None)
    return np.where(_distance(system) > 0, OUTSIDE, np.sqrt(FLOOR**2 + mixed)).astype(np.float32)


def _distance(system: System) -> np.ndarray:
    """Distance in mm of each voxel of the box from the cube, along the axis where it is the largest."""
    beyond = [
        np.maximum(np.maximum(margin - np.arange(size), np.arange(size) - (size - 1 - margin)), 0)
        for margin, size in zip(system.margins, system.shape, strict=True)
    ]
    return system.cube.spacing[0] * np.maximum.reduce(np.meshgrid(*beyond, indexing="ij"))


def _gradient(x: Tensor) -> Tensor:
    """√(|∇x|² + EDGE²) for all voxels but the last of each axis."""
    along_z, along_y, along_x = x.diff(dim=0)[:, :-1, :-1], x.diff(dim=1)[:-1, :, :-1], x.diff(dim=2)[:-1, :-1]
    return (along_z.square() + along_y.square() + along_x.square() + EDGE**2).sqrt()
