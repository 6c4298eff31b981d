"""Draw pairs of X-rays and volume for training; each batch depends only on the seed and its number."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from raylift.config.recipe import DataConfig, XrayAugmentationConfig
from raylift.data.dataset import Case, PreparedDataset
from raylift.data.tissue import Tissue
from raylift.data.warp import Warp, scan_coverage
from raylift.drr.operator import ProjectionOperator
from raylift.geometry import PRESETS, Geometry, View, VolumeGrid
from raylift.geometry.presets import CHEST_FIELD_MM
from raylift.images.hounsfield import WATER_MU, hu_to_normalised
from raylift.lifting.scaling import as_pictures
from raylift.plugins.extras import import_extra

MOST_DRAWN_VIEWS = 8
ANGLE_STEP = 5  # degrees between the angles that may be drawn


@dataclass(frozen=True)
class Batch:
    """A batch of pairs.

    Args:
        xrays: line integrals (B, N, rows, columns).
        truth: volumes (B, 1, D, H, W) in [0, 1].
        views: the views of the X-rays.
        geometry: the source and the detector.
        patients: the number of each pair's case.
    """

    xrays: Tensor
    truth: Tensor
    views: tuple[View, ...]
    geometry: Geometry
    patients: tuple[int, ...]


@dataclass
class Pairs:
    """The source of pairs, common to both kinds.

    Args:
        dataset: the prepared scans.
        cases: the cases to draw from.
        views: the views of the X-rays.
        settings: the data part of the recipe.
        device: the device of the batches.
        seed: the seed of the run; batch k depends only on it and on k.
        rank: the number of this process among those that train together.
        ranks: the number of these processes, each of which makes its share of every batch.
    """

    dataset: PreparedDataset
    cases: Sequence[Case]
    views: tuple[View, ...]
    settings: DataConfig
    device: torch.device
    seed: int
    rank: int = 0
    ranks: int = 1

    def case_indices(self, number: int, size: int) -> list[int]:
        """Return the indices of the cases in batch `number` of `size` pairs.

        The cases are shuffled for each epoch, which has as many batches as the cases fill. So no case is in a batch
        twice, unless a batch has more pairs than there are cases.
        """
        count = len(self.cases)
        batches = max(1, count // size)
        epoch, position = divmod(number, batches)
        generator = torch.Generator().manual_seed(_mix(self.seed, -1 - epoch))
        shuffled = torch.cat([torch.randperm(count, generator=generator) for _ in range(-(-size // count))])
        return shuffled[position * size : (position + 1) * size].tolist()

    def share(self, size: int) -> slice:
        """Return the range of a batch's pairs that this process makes."""
        return slice(self.rank * size // self.ranks, (self.rank + 1) * size // self.ranks)


@dataclass
class OnlinePairs(Pairs):
    """Pairs from scans that are warped and projected again for each batch.

    Args:
        voxels: edge of the truth in voxels; the dataset's by default.
    """

    voxels: int | None = None

    def __post_init__(self) -> None:
        self.geometry = self.dataset.geometry.with_pixels(self.settings.xray_pixels)
        # The target is sampled at twice the resolution and averaged: voxels are means, as in a scan.
        self.grid, self.fine_grid = (
            VolumeGrid.cube((0, 0, 0), self.dataset.cube_mm, edge * (self.voxels or self.dataset.voxels))
            for edge in (1, 2)
        )
        spacing = self.settings.projection_spacing
        z, y, x = (round(extent / spacing) for extent in CHEST_FIELD_MM)
        self.projected_grid = VolumeGrid.box((0, 0, 0), (z, y, x), spacing)

    def batch(self, number: int, size: int) -> Batch:
        """Return this process's share of batch `number` of `size` pairs."""
        generator = torch.Generator().manual_seed(_mix(self.seed, number))
        views, geometry = self._draw_views(generator), self._draw_geometry(generator)
        augmentation = self.settings.augmentation
        truths, contexts = [], []
        share = self.share(size)
        indices = self.case_indices(number, size)
        augmentations = [(Warp.draw(augmentation, generator), Tissue.draw(augmentation, generator)) for _ in indices]
        for index, (warp, tissue) in zip(indices[share], augmentations[share], strict=True):
            case = self.cases[index]
            hu = self._scan(case)
            isocentre = torch.tensor(case.isocentre, dtype=torch.float64)
            fine, context = (
                tissue.change(warp.density(hu, case.context_grid, grid, isocentre), grid)
                for grid in (self.fine_grid, self.projected_grid)
            )
            ends = warp.ends(case.context_grid, isocentre)
            truth = F.avg_pool3d(fine.div_(2000).clamp_(max=1)[None], 2)  # as `hu_to_normalised`
            # A voxel of the truth is within the scan or not; a ray is cut exactly at the end of the scan.
            truths.append(truth * scan_coverage(self.grid, ends).round().to(truth.device))
            contexts.append(context.mul_(scan_coverage(self.projected_grid, ends).to(context.device)))
        mu = torch.stack(contexts).mul_(WATER_MU / 1000)
        xrays = ProjectionOperator(self.projected_grid, geometry.cameras(views))(mu)
        return Batch(xrays, torch.stack(truths), views, geometry, tuple(indices[share]))

    def _draw_views(self, generator: torch.Generator) -> tuple[View, ...]:
        """Return the recipe's views or, with probability `any_views`, others.

        Half of the others are a part of the recipe's views, such as the frontal one alone, and half are 1 to
        `MOST_DRAWN_VIEWS` views at any angles.
        """
        settings = self.settings
        other = settings.any_views > 0 and float(torch.rand(1, generator=generator)) < settings.any_views
        if other and float(torch.rand(1, generator=generator)) < 0.5:
            count = int(torch.randint(1, MOST_DRAWN_VIEWS + 1, (1,), generator=generator))
            angles = torch.randperm(360 // ANGLE_STEP, generator=generator)[:count] * ANGLE_STEP
            return tuple(View(float(angle)) for angle in angles)
        flips = torch.rand(len(self.views), generator=generator) < 0.5
        own = [
            view.opposite if settings.opposite_views and turn else view
            for view, turn in zip(self.views, flips.tolist(), strict=True)
        ]
        if not other:
            return tuple(own)
        count = int(torch.randint(1, max(2, len(own)), (1,), generator=generator))
        return tuple(own[k] for k in torch.randperm(len(own), generator=generator)[:count].tolist())

    def _draw_geometry(self, generator: torch.Generator) -> Geometry:
        """Return the dataset's geometry or, with probability `any_geometry`, one of the presets."""
        settings = self.settings
        if settings.any_geometry and float(torch.rand(1, generator=generator)) < settings.any_geometry:
            names = sorted(PRESETS)
            name = names[int(torch.randint(len(names), (1,), generator=generator))]
            return Geometry.preset(name, settings.xray_pixels)
        return self.geometry

    def _scan(self, case: Case) -> Tensor:
        """Return a case's whole scan (z, y, x) on the device, int16 in HU."""
        if self.device.type == "cpu":
            with warnings.catch_warnings():  # PyTorch warns of read-only memory, which is never written here
                warnings.simplefilter("ignore")
                return torch.from_numpy(case.context)
        return torch.from_numpy(np.array(case.context)).to(self.device)


@dataclass
class OfflinePairs(Pairs):
    """The paper's pairs: stored targets and stored X-rays, of which only the X-rays are augmented."""

    def __post_init__(self) -> None:
        self.indices = self.dataset.view_indices(self.views)

    def batch(self, number: int, size: int) -> Batch:
        """Return this process's share of batch `number` of `size` pairs."""
        seed = _mix(self.seed, number)
        indices = self.case_indices(number, size)
        share = self.share(size)
        xrays = np.stack([self.cases[k].xrays[self.indices] for k in indices])
        truths = np.stack(
            [hu_to_normalised(self.cases[k].truth.array.astype(np.float32))[None] for k in indices[share]]
        )
        pixels = (self.settings.xray_pixels,) * 2
        images = F.interpolate(torch.from_numpy(xrays).to(self.device), pixels, mode="area")
        images = as_pictures(images) if self.settings.pictures else images
        # All pairs are augmented, so that each process draws the same numbers.
        images = augment_xrays(images, self.settings.xray_augmentation, seed)[share]
        geometry = self.dataset.geometry.with_pixels(self.settings.xray_pixels)
        return Batch(images, torch.from_numpy(truths).to(self.device), self.views, geometry, tuple(indices[share]))


def augment_xrays(xrays: Tensor, settings: XrayAugmentationConfig, seed: int) -> Tensor:
    """Return X-rays (B, N, rows, columns) with the paper's augmentation: contrast, then rotation, then flip.

    As in the published program, all views of a patient share one draw, so that they still show the same patient.
    """
    kornia = import_extra("kornia.augmentation", "paper", "data.xray_augmentation")
    low, high = settings.contrast
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        factor = (low + (high - low) * torch.rand(len(xrays), 1, 1, 1)).to(xrays.device)
        mean = xrays.mean((2, 3), keepdim=True)
        xrays = (xrays - mean) * factor + mean
        # Kornia draws once for all channels of a sample, here the views.
        xrays = kornia.RandomAffine(settings.rotation, p=settings.rotation_probability)(xrays)
        flipped: Tensor = kornia.RandomHorizontalFlip(p=settings.flip_probability)(xrays)
    return flipped


def _mix(seed: int, number: int) -> int:
    """Return a generator's seed that differs between all runs and batches in use."""
    return (seed * 1_000_003 + number) & 0x7FFF_FFFF_FFFF_FFFF
