"""Augment the tissues of a patient: their densities, and opacities in the lungs and other parts that hold air.

They vary from patient to patient as much as shapes do, with scanner, contrast medium, inspiration and disease. Both
changes are functions of density and position, so X-rays projected from a changed scan and its target are a true pair.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from raylift.config.recipe import AugmentationConfig
from raylift.geometry import VolumeGrid

# Densities are in thousandths of water's: Hounsfield units + 1000.
LUNG, FAT, SOFT_TISSUE, BONE = (100.0, 500.0), 900.0, 1050.0, 1150.0  # lungs from ... to; bone from
DENSEST = 4096
AERATED = (60.0, 750.0)  # densities that an opacity fills: lung, and the body's border, but not free air
CENTRES_MM = (240.0, 160.0, 240.0)  # extent along (x, y, z) of the box in which opacities are centred
MOST_OPACITIES = 3
SMALL_MM, LARGE_MM = (6.0, 25.0), (25.0, 80.0)  # ranges of semi-axes: nodules and patches; consolidation and effusion
LARGE = 0.4  # share of large opacities
OPACITY = (0.15, 1.0)  # range of the share of the air that is replaced
FILLING = (850.0, 1060.0)  # range of the density that replaces it
SOFTNESS = (0.05, 0.4)  # range of the width of the border, as a share of the semi-axes


@dataclass(frozen=True)
class Opacity:
    """An ellipsoid in which the air of voxels, such as those of the lungs, is replaced by denser tissue.

    Args:
        centre: the centre (x, y, z) in mm from the isocentre.
        semi_axes: the semi-axes (x, y, z) in mm.
        share: the share of the air in the middle that is replaced, in [0, 1].
        filling: the density that replaces it, in thousandths of water's.
        softness: the width of the border, as a share of the semi-axes.
    """

    centre: tuple[float, float, float]
    semi_axes: tuple[float, float, float]
    share: float
    filling: float
    softness: float


@dataclass(frozen=True)
class Tissue:
    """A random change of tissues.

    Args:
        curve: the new density for each density 0 ... `DENSEST` − 1; None for no change.
        opacities: the opacities in the lungs.
    """

    curve: Tensor | None
    opacities: tuple[Opacity, ...]

    @classmethod
    def draw(cls, settings: AugmentationConfig, generator: torch.Generator) -> Tissue:
        """Draw a change; the same state of the generator gives the same change.

        Returns:
            The change.
        """

        def uniform(low: float, high: float) -> float:
            return low + (high - low) * float(torch.rand(1, generator=generator, dtype=torch.float64))

        lung, soft, bone = (uniform(-reach, reach) for reach in (settings.lung, settings.soft_tissue, settings.bone))
        curve = _curve(lung, soft, bone) if settings.lung or settings.soft_tissue or settings.bone else None
        if not uniform(0, 1) < settings.opacities:
            return cls(curve, ())
        opacities = []
        for _ in range(int(torch.randint(1, MOST_OPACITIES + 1, (1,), generator=generator))):
            sizes = LARGE_MM if uniform(0, 1) < LARGE else SMALL_MM
            x, y, z = (uniform(-extent / 2, extent / 2) for extent in CENTRES_MM)
            opacities.append(
                Opacity(
                    centre=(x, y, z),
                    semi_axes=(uniform(*sizes), uniform(*sizes), uniform(*sizes)),
                    share=uniform(*OPACITY),
                    filling=uniform(*FILLING),
                    softness=uniform(*SOFTNESS),
                )
            )
        return cls(curve, tuple(opacities))

    def change(self, density: Tensor, grid: VolumeGrid) -> Tensor:
        """Return the changed densities (D, H, W), in new memory or in that of `density`.

        Args:
            density: densities (D, H, W) = (z, y, x) on `grid`, in thousandths of water's, at least 0.
            grid: an axis-aligned grid, with positions relative to the isocentre.
        """
        for opacity in self.opacities:  # before the curve, which may give lung the density of free air
            _fill(opacity, density, grid)
        if self.curve is not None:
            density = self.curve.to(density.device)[density.round().clamp_(0, DENSEST - 1).long()]
        return density


def _curve(lung: float, soft: float, bone: float) -> Tensor:
    """Return the new densities (`DENSEST`,) of the densities 0 ... `DENSEST` − 1.

    Lung and soft tissue are shifted, and fat by half as much as soft tissue; bone is stretched.
    """
    knots = torch.tensor([0.0, LUNG[0] / 3, *LUNG, FAT, SOFT_TISSUE, BONE, DENSEST - 1.0])
    shifts = torch.tensor([0.0, 0.0, lung, lung / 2, soft / 2, soft, soft + bone * (BONE - SOFT_TISSUE),
                           soft + bone * (DENSEST - 1 - SOFT_TISSUE)])  # fmt: skip
    values = (knots + shifts).clamp_min(0).cummax(0).values
    densities = torch.arange(DENSEST, dtype=torch.float32)
    upper = torch.searchsorted(knots, densities).clamp(1, len(knots) - 1)
    share = (densities - knots[upper - 1]) / (knots[upper] - knots[upper - 1])
    return torch.lerp(values[upper - 1], values[upper], share)


def _fill(opacity: Opacity, density: Tensor, grid: VolumeGrid) -> None:
    """Replace air in tissue by an opacity's filling, in place."""
    squared = torch.zeros((), device=density.device)
    for axis, (origin, spacing, size) in enumerate(zip(grid.origin, grid.spacing, grid.shape[::-1], strict=True)):
        position = origin + spacing * torch.arange(size, device=density.device)
        along = ((position - opacity.centre[axis]) / opacity.semi_axes[axis]).square()
        squared = squared + along.view([-1 if k == 2 - axis else 1 for k in range(3)])
    share = opacity.share * torch.sigmoid((1 - squared.sqrt()) / opacity.softness)
    share *= (density > AERATED[0]) & (density < AERATED[1])
    density += share * (opacity.filling - density).clamp_min_(0)
