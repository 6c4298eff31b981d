"""A prepared dataset in training: pairs of X-rays and volume, each batch a function of the seed and its number."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
import torch
import torch.nn.functional as F
from torch import Tensor

from raylift.data.augment import Augmentation, Warp
from raylift.drr import Projector
from raylift.errors import BadInput
from raylift.geometry import Geometry, Point, View, VolumeGrid
from raylift.recipe import DataPart, XrayAugmentationPart
from raylift.volumes import WATER_MU, Volume, hu_to_unit, read_volume

# What is projected of a warped scan, in mm along (z, y, x): all that a chest stand's detector sees.
PROJECTED_MM = (440.0, 400.0, 480.0)
AGAIN = "run raylift data prepare again"


@dataclass(frozen=True)
class Case:
    """A prepared case; its files are read when asked for, and BadInput is raised if one is missing or damaged."""

    name: str
    folder: Path
    isocentre: Point
    context_grid: VolumeGrid
    xrays_shape: tuple[int, int, int]

    @property
    def truth(self) -> Volume:
        """The target cube, int16 HU."""
        with self._reading("ct.nii.gz") as path:
            return read_volume(path)

    @property
    def xrays(self) -> np.ndarray:
        """The stored X-rays (V, rows, columns), float32 line integrals."""
        with self._reading("xrays.mha") as path:
            array: np.ndarray = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
            _check_shape(array, self.xrays_shape)
            return array

    @cached_property
    def context(self) -> np.ndarray:
        """The whole scan (z, y, x), int16 HU on `context_grid`, memory-mapped."""
        with self._reading("context.npy") as path:
            array: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
            _check_shape(array, self.context_grid.shape)
            return array

    @contextmanager
    def _reading(self, name: str) -> Iterator[Path]:
        try:
            yield self.folder / name
        except (OSError, EOFError, RuntimeError, ValueError) as error:  # RuntimeError is ITK's
            reason = [type(error).__name__, *str(error).strip().splitlines()][-1]
            raise BadInput(self.folder, f"its {name} cannot be read ({reason})", AGAIN) from None


def _check_shape(array: np.ndarray, shape: tuple[int, ...]) -> None:
    if array.shape != shape:
        raise ValueError(f"{array.shape} values, not {shape}")


class PreparedDataset:
    """The folder that `raylift data prepare` writes.

    Args:
        folder: holds `dataset.json`, `splits.json` and `cases/`.

    Raises:
        BadInput: it does not, or a split names what is no usable case.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        try:
            self.info: dict[str, Any] = json.loads((self.folder / "dataset.json").read_text())
            self.splits: dict[str, list[str]] = json.loads((self.folder / "splits.json").read_text())
            self.geometry = Geometry.from_dict(self.info["geometry"])
            self.views = tuple(View(**view) for view in self.info["views"])
            self.voxels, self.cube_mm = int(self.info["voxels"]), float(self.info["cube_mm"])
            self._check_splits()
        except OSError:
            raise BadInput(folder, "not a prepared dataset", "make one with raylift data prepare") from None
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise BadInput(
                folder, f"its dataset.json or splits.json is damaged ({error})", "prepare it again"
            ) from None

    def _check_splits(self) -> None:
        """Raise ValueError or the like unless every name is a usable case's; results are written under these names."""
        usable = {name for name, case in self.info["cases"].items() if case["status"] == "ok"}
        if not isinstance(self.splits, dict) or not all(isinstance(names, list) for names in self.splits.values()):
            raise TypeError("splits are lists of cases by name")
        for name in itertools.chain(*self.splits.values()):
            if name not in usable or Path(name).name != name or name in ("", ".."):
                raise ValueError(f"{name!r} in a split is no usable case")

    def names(self, split: str) -> list[str]:
        """Case names of "train", "validation", or "all".

        Raises:
            BadInput: there is no such split, or it is empty.
        """
        names = sorted(itertools.chain(*self.splits.values())) if split == "all" else self.splits.get(split)
        if not names:
            raise BadInput(self.folder, f"no cases in the split '{split}'", f"it has {', '.join(self.splits)}, all")
        return names

    def case(self, name: str) -> Case:
        """One case. Raises BadInput if its record is missing, damaged, or not the one in `dataset.json`."""
        folder = self.folder / "cases" / name
        pixels = self.geometry.pixels
        try:
            record = json.loads((folder / "case.json").read_text())
            x, y, z = record["isocentre_lps_mm"]
            grid = VolumeGrid.from_dict(record["context_grid"])
            same = record["sha256"] == self.info["cases"][name]["sha256"]
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise BadInput(folder, f"not a prepared case ({error})", AGAIN) from None
        if not same:
            # An interrupted run with other settings leaves cases that dataset.json, written last, does not describe.
            raise BadInput(folder, "not the case that dataset.json tells of", AGAIN)
        return Case(name, folder, (x, y, z), grid, (len(self.views), pixels, pixels))

    def cases(self, split: str) -> list[Case]:
        """All cases of a split."""
        return [self.case(name) for name in self.names(split)]

    def view_indices(self, views: Sequence[View]) -> list[int]:
        """Where the wanted views stand among the stored ones. Raises BadInput if one is not stored."""
        missing = [view.name for view in views if view not in self.views]
        if missing:
            stored = ", ".join(view.name for view in self.views)
            raise BadInput(self.folder, f"no X-rays of view {', '.join(missing)}", f"it has {stored}")
        return [self.views.index(view) for view in views]


@dataclass(frozen=True)
class Batch:
    """Pairs. X-rays (B, N, rows, columns) are line integrals; truth (B, 1, D, H, W) is in [0, 1]."""

    xrays: Tensor
    truth: Tensor
    views: tuple[View, ...]


class OnlinePairs:
    """Scans warped anew for each batch and projected again.

    Args:
        dataset: prepared scans.
        cases: those to draw from.
        views: directions of the X-rays.
        settings: the recipe's data part.
        device: where batches are made.
        seed: of the run; batch k depends on it and k alone.
    """

    def __init__(
        self,
        dataset: PreparedDataset,
        cases: Sequence[Case],
        views: Sequence[View],
        settings: DataPart,
        device: torch.device,
        seed: int,
    ) -> None:
        self.cases, self.views, self.settings, self.device, self.seed = (
            cases,
            tuple(views),
            settings,
            device,
            seed,
        )
        self.augmentation = Augmentation(**settings.augmentation.model_dump())
        self.geometry = dataset.geometry.with_pixels(settings.xray_pixels)
        # The target is sampled twice as finely and averaged: voxels are means, as in a scan.
        self.fine_grid = VolumeGrid.cube((0, 0, 0), dataset.cube_mm, 2 * dataset.voxels)
        spacing = settings.projection_spacing
        z, y, x = (round(extent / spacing) for extent in PROJECTED_MM)
        self.projected_grid = VolumeGrid.box((0, 0, 0), (z, y, x), spacing)
        self._projectors: dict[View, Projector] = {}

    def batch(self, number: int, size: int) -> Batch:
        """Batch `number` of `size` pairs."""
        generator = torch.Generator().manual_seed(_mix(self.seed, number))
        turned = torch.rand(len(self.views), generator=generator) < 0.5
        views = tuple(
            view.opposite if self.settings.opposite_views and turn else view
            for view, turn in zip(self.views, turned.tolist(), strict=True)
        )
        truths, contexts = [], []
        for choice in torch.randint(len(self.cases), (size,), generator=generator).tolist():
            case = self.cases[choice]
            warp = Warp.draw(self.augmentation, generator)
            hu = torch.from_numpy(np.array(case.context)).to(self.device).float()
            isocentre = torch.tensor(case.isocentre, dtype=torch.float64)
            fine = warp.apply(hu, case.context_grid, self.fine_grid, isocentre)
            truths.append(F.avg_pool3d(_unit(fine)[None], 2))
            contexts.append(warp.apply(hu, case.context_grid, self.projected_grid, isocentre))
        mu = WATER_MU * (torch.stack(contexts) / 1000 + 1).clamp_min(0)
        with torch.no_grad():
            xrays = torch.cat([self._projector(view)(mu) for view in views], 1)
        return Batch(xrays, torch.stack(truths), views)

    def _projector(self, view: View) -> Projector:
        if view not in self._projectors:
            projector = Projector(self.projected_grid, self.geometry, [view], (0, 0, 0))
            self._projectors[view] = projector.to(self.device)
        return self._projectors[view]


class OfflinePairs:
    """Stored X-rays and targets, the X-rays augmented on their own: the paper's pairs.

    Arguments as for `OnlinePairs`.
    """

    def __init__(
        self,
        dataset: PreparedDataset,
        cases: Sequence[Case],
        views: Sequence[View],
        settings: DataPart,
        device: torch.device,
        seed: int,
    ) -> None:
        self.cases, self.views, self.settings, self.device, self.seed = (
            cases,
            tuple(views),
            settings,
            device,
            seed,
        )
        self.indices = dataset.view_indices(self.views)

    def batch(self, number: int, size: int) -> Batch:
        """Batch `number` of `size` pairs."""
        seed = _mix(self.seed, number)
        generator = torch.Generator().manual_seed(seed)
        chosen = torch.randint(len(self.cases), (size,), generator=generator).tolist()
        xrays = np.stack([self.cases[k].xrays[self.indices] for k in chosen])
        truths = np.stack([hu_to_unit(self.cases[k].truth.array.astype(np.float32))[None] for k in chosen])
        pixels = (self.settings.xray_pixels,) * 2
        images = F.interpolate(torch.from_numpy(xrays).to(self.device), pixels, mode="area")
        images = augment_xrays(images, self.settings.xray_augmentation, seed)
        return Batch(images, torch.from_numpy(truths).to(self.device), self.views)


def augment_xrays(xrays: Tensor, settings: XrayAugmentationPart, seed: int) -> Tensor:
    """The paper's augmentation of X-rays (B, N, rows, columns): contrast, rotation, flip, each image on its own."""
    from kornia.augmentation import RandomAffine, RandomHorizontalFlip

    low, high = settings.contrast
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        images = xrays.flatten(0, 1)[:, None]
        images = RandomAffine(settings.rotation, p=settings.rotation_probability)(images)
        images = RandomHorizontalFlip(p=settings.flip_probability)(images)
        factor = low + (high - low) * torch.rand(len(images), 1, 1, 1)
        mean = images.mean((2, 3), keepdim=True)
        images = (images - mean) * factor.to(images.device) + mean
    return images[:, 0].view_as(xrays)


def _unit(hu: Tensor) -> Tensor:
    return ((hu + 1000) / 2000).clamp(0, 1)


def _mix(seed: int, number: int) -> int:
    """Distinct generator seeds for all runs and batches in use."""
    return (seed * 1_000_003 + number) & 0x7FFF_FFFF_FFFF_FFFF
