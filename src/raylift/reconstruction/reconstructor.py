"""Weights and X-rays to a volume, with a statement of how well the volume explains its own X-rays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F

from raylift.config.recipe import DataConfig
from raylift.drr.operator import ProjectionOperator
from raylift.errors import BadInput, WrongUsage
from raylift.geometry import Geometry, View, VolumeGrid
from raylift.images.hounsfield import WINDOW, hu_to_mu, normalised_to_hu
from raylift.images.volume import Volume
from raylift.images.xray_set import XraySet, describe_geometry
from raylift.model.device import device_of
from raylift.model.weights import Weights, load_weights
from raylift.radiographs import Grey, Orientation, Radiograph
from raylift.radiographs.intake import read_radiographs
from raylift.radiographs.out_of_distribution import OOD_THRESHOLD
from raylift.radiographs.sets import XrayInput, kind_of, read_xrays

if TYPE_CHECKING:
    from raylift.reconstruction.refinement import Refined

AIR = -950.0  # HU, of voxels that are air
EXACT_LIFTS = ("backproject", "repeat")
ANGLE_TOLERANCE = 2.0  # degrees between an X-ray's view and the one the weights were trained for


@dataclass(frozen=True)
class Reconstruction:
    """A volume and its account.

    Args:
        volume: Hounsfield units (z, y, x), float32, on a cube around the X-rays' isocentre (around the world's
            origin where that is not known).
        xrays: those it was made from, on the weights' detector: finer ones are averaged to its pixels. Where they were
            aligned, their views say where they were found.
        reprojected: line integrals (N, rows, columns) through the volume.
        reprojection_error: mean absolute difference of `reprojected` and the X-rays as a share of their mean. What
            the rays cross outside of the cube counts as error, so that even a perfect volume does not reach 0.
        notes: what a user should know, one sentence each.
        uncertainty: standard deviation of each voxel's error in HU, on the volume's grid, where the weights tell it;
            before refinement.
        ood_score: distance of the strangest X-ray from those of the training, relative to patients who were left out
            of it (see `raylift.radiographs.out_of_distribution`), where the weights tell it.
        refined: what refinement did, of which `volume` is the result; None without.
    """

    volume: Volume
    xrays: XraySet
    reprojected: np.ndarray
    reprojection_error: float
    notes: tuple[str, ...]
    uncertainty: Volume | None = None
    ood_score: float | None = None
    refined: Refined | None = None

    @property
    def trust(self) -> str:
        """How far to trust the volume, in a sentence on its X-rays, the training's, and what it says of its error."""
        parts = [f"the volume's own projections differ from the X-rays by {self.reprojection_error:.1%}"]
        if self.refined is not None:
            parts.append(f"by {self.refined.error_after:.1%} with what was found around it")
        if self.ood_score is not None:
            parts.append(
                f"the X-rays are {self.ood_score:.1f} times as far from the training as the strangest of patients "
                "left out of it"
            )
        if self.uncertainty is not None:
            body = self.volume.array > AIR
            usual = float(np.sqrt(np.square(self.uncertainty.array[body]).mean())) if body.any() else 0.0
            when = " before refinement" if self.refined is not None else ""
            parts.append(f"a voxel of the body is expected to be off by {usual:.0f} HU{when} (standard deviation)")
        return ", ".join(parts)


class Reconstructor:
    """Lifts X-rays into a CT-like volume with trained weights.

    Example:
        >>> from raylift import Reconstructor
        >>> reconstructor = Reconstructor.from_pretrained()
        >>> result = reconstructor("xrays")  # a folder that `raylift drr` wrote
        >>> result = reconstructor(["pa.png", "lateral.dcm"], views=["pa", "lateral-left"])
        >>> result.volume.array.shape, result.volume.grid.spacing
        ((64, 64, 64), (5.0, 5.0, 5.0))

    Args:
        weights: see `raylift.model.weights.load_weights`.
        device: where to compute; the first GPU, or else the CPU, by default.
    """

    def __init__(self, weights: Weights, device: torch.device | str | None = None) -> None:
        self.weights = weights
        self.device = device_of(device)
        self.lifted_network = weights.lifted_network.to(self.device)

    @classmethod
    def from_pretrained(
        cls, weights: str | Path | None = None, device: torch.device | str | None = None
    ) -> Reconstructor:
        """A reconstructor with the weights of a file, folder, run or name; with the embedded `chest-64` by default.

        Raises:
            BadInput: the weights are missing or damaged.
            WrongUsage: there is no such device.
        """
        return cls(load_weights(weights), device)

    @property
    def geometry(self) -> Geometry:
        """The X-ray unit the weights were trained for."""
        return self.lifted_network.geometry

    def __call__(
        self,
        xrays: XraySet | str | Path | Sequence[str | Path] | np.ndarray,
        views: Sequence[str | float | View] | None = None,
        *,
        refine: bool = False,
        align: bool = False,
        seconds: float = 20.0,
        progress: Callable[[str, int, int], None] = lambda note, done, total: None,
    ) -> Reconstruction:
        """Reconstruct one patient.

        Args:
            xrays: a set of X-rays; or a folder that `raylift drr` wrote; or image files; or line integrals
                (N, rows, columns) that show the weights' detector from edge to edge, row 0 superior.
            views: one angle or name per file or image, in their order; by default what files say or look like,
                and for arrays those of the weights. A set and a folder say theirs themselves.
            refine: bring the volume into agreement with the X-rays (`raylift.reconstruction.refinement.refine`).
            align: find small displacements of the views first (`raylift.reconstruction.alignment.align`), and ask the
                network again.
            seconds: time limit of the refinement.
            progress: called during refinement with a note, how many iterations are done, and how many there are.

        Raises:
            BadInput: an image is unusable, or the views or the unit are not those of the weights.
            WrongUsage: views for a set or a folder; `align` with weights whose lift does not know displaced views.
        """
        if align and self.lifted_network.lift_name not in EXACT_LIFTS:
            raise WrongUsage(
                f"align: weights of the lift '{self.lifted_network.lift_name}' do not know displaced views"
            )
        chosen = self.matched(self._read(xrays, views))
        volume, uncertainty = self._translated(chosen)
        refined = None
        if align:
            from raylift.reconstruction import alignment

            for motions in alignment.ROUNDS:
                chosen = replace(chosen, views=alignment.align(volume, chosen, motions))
                volume, uncertainty = self._translated(chosen)
        if refine:
            from raylift.reconstruction import refinement

            refined = refinement.refine(volume, chosen, seconds, progress, uncertainty)
            volume = refined.volume
        reprojected = reproject(volume, chosen)
        error = float(np.abs(reprojected - chosen.images).mean() / max(float(chosen.images.mean()), 1e-6))
        notes = [*chosen.notes]
        if chosen.isocentre is None:
            notes.append("the X-rays carry no isocentre: the volume is centred on the world's origin")
        if len(chosen.views) == 1:
            notes.append("one X-ray alone: what lies along its rays is placed where it usually is")
        ood_detector, ood_score = self.weights.ood_detector, None
        if ood_detector is not None:
            ood_score = float(ood_detector.distances(chosen.images, chosen.views).max())
            if ood_score > OOD_THRESHOLD:
                notes.append(
                    "do not trust the volume: the X-rays are unlike those of the training "
                    f"({ood_score:.1f} times as far off as any patient's there); "
                    "is it a chest, upright, bright where it absorbs, the views as named?"
                )
        return Reconstruction(volume, chosen, reprojected, error, tuple(notes), uncertainty, ood_score, refined)

    def _translated(self, xrays: XraySet) -> tuple[Volume, Volume | None]:
        """The network's volume and its uncertainty in Hounsfield units, on the cube around the X-rays' isocentre."""
        images = torch.from_numpy(xrays.images).float().to(self.device)[None]
        with torch.no_grad():  # lifts and projectors that are made here and kept serve gradients later
            unit, *spread = self.lifted_network(images, xrays.views, xrays.geometry)[0].float().cpu().numpy()
        cube = self.lifted_network.grid
        centre = xrays.isocentre or (0.0, 0.0, 0.0)
        grid = VolumeGrid.cube(centre, cube.shape[0] * cube.spacing[0], cube.shape[0])
        volume = Volume(normalised_to_hu(unit.clip(0, 1)), grid)
        if not spread:
            return volume, None
        factor = self.weights.info.uncertainty_factor
        # A Laplace distribution's standard deviation is √2 times its mean absolute value.
        return volume, Volume(factor * 2**0.5 * (WINDOW[1] - WINDOW[0]) * spread[0], grid)

    def _read(
        self,
        xrays: XraySet | str | Path | Sequence[str | Path] | np.ndarray,
        views: Sequence[str | float | View] | None,
    ) -> XraySet:
        says_views = isinstance(xrays, XraySet)
        if isinstance(xrays, (str, Path)):
            says_views = kind_of([Path(xrays)]) is not XrayInput.IMAGES
        if views is not None and says_views:
            raise WrongUsage(f"views: {'the set' if isinstance(xrays, XraySet) else xrays} says its views itself")
        if isinstance(xrays, XraySet):
            return xrays
        if isinstance(xrays, (str, Path)):
            if says_views:
                return read_xrays(xrays)
            xrays = [xrays]
        given = None if views is None else _parse_views(views)
        if isinstance(xrays, np.ndarray):
            given = self.lifted_network.views if given is None else given
            images = np.ascontiguousarray(xrays, np.float32)
            if (
                images.ndim != 3
                or not images.size
                or images.shape[1] != images.shape[2]
                or not np.isfinite(images).all()
            ):
                raise BadInput("X-rays", f"an array {images.shape}", "give finite numbers (N, rows, rows)")
            if len(images) != len(given):
                raise BadInput(f"{len(images)} X-rays", f"{len(given)} views given", "give one view per X-ray")
            return XraySet(images, given, self.geometry.with_pixels(images.shape[1]))
        return self.read(xrays, given)

    def read(
        self,
        files: Sequence[str | Path],
        views: Sequence[View | None] | None = None,
        orientations: Sequence[Orientation | None] | None = None,
        decoded: Sequence[Radiograph | Grey] | None = None,
    ) -> XraySet:
        """Radiographs as X-rays of the weights' unit; see `raylift.radiographs.intake.read_radiographs`."""
        data = self.weights.info.recipe.data
        return read_radiographs(
            files,
            views,
            self.geometry,
            geometry_from_files=bool(data.any_geometry),
            ood_detector=self.weights.ood_detector,
            orientations=orientations,
            decoded=decoded,
        )

    def matched(self, xrays: XraySet) -> XraySet:
        """The X-rays in the order of the weights' views, averaged to their pixels where finer.

        Raises:
            BadInput: there are none, they are not finite, or the weights were not trained for these.
        """
        if not len(xrays.views) or not np.isfinite(xrays.images).all():
            raise BadInput("X-rays", "none, or some not finite numbers", "give at least one, without NaN or infinity")
        unit, data = xrays.geometry, self.weights.info.recipe.data
        ours = replace(self.geometry, pixels=unit.pixels)
        same = np.allclose(list(ours.to_dict().values()), list(unit.to_dict().values()), rtol=1e-3)
        if not (same or data.any_geometry):
            raise BadInput(
                "X-rays",
                f"taken with {describe_geometry(unit)}, the weights are for {describe_geometry(ours)}",
                "use other weights",
            )
        cube = self.lifted_network.grid
        if not unit.parallel and unit.sad <= cube.shape[0] * cube.spacing[0] / 2**0.5:
            raise BadInput(
                "X-rays", f"taken with {describe_geometry(unit)}: the source stands in the volume", "give it in mm"
            )
        order = list(range(len(xrays.views))) if data.any_views else self._ordered(xrays.views, data)
        images, pixels = xrays.images[order], self.geometry.pixels
        if unit.pixels > pixels:
            # As Mapping.lift would; re-projecting onto the millions of pixels of a radiograph exhausts memory.
            finer = torch.from_numpy(images).float()
            images = F.interpolate(finer[None], (pixels, pixels), mode="area")[0].numpy()
            unit = unit.with_pixels(pixels)
        return replace(xrays, images=images, views=tuple(xrays.views[k] for k in order), geometry=unit)

    def _ordered(self, views: Sequence[View], data: DataConfig) -> list[int]:
        """Which of the views stand for those of the weights, in the weights' order. Raises BadInput if others do."""
        wanted, chosen = self.lifted_network.views, dict[int, int]()
        either = data.opposite_views and data.pairs == "online"
        # A view from the other side is taken only where no other X-ray is from the wanted side.
        for opposite in (False, True) if either else (False,):
            for place, view in enumerate(wanted):
                angle = (view.opposite if opposite else view).angle
                near = [k for k, given in enumerate(views) if _near(given.angle, angle) and k not in chosen.values()]
                if near and place not in chosen:
                    chosen[place] = near[0]
        order = [chosen[place] for place in sorted(chosen)]
        if len(order) != len(wanted) or len(views) != len(wanted):
            given_names = ", ".join(view.name for view in views)
            wanted_names = ", ".join(f"{view.name} ({view.angle:g}°)" for view in wanted)
            raise BadInput(
                f"X-rays of views {given_names}",
                f"the weights are for {wanted_names}",
                "give these, or other weights",
            )
        return order


def reproject(volume: Volume, xrays: XraySet) -> np.ndarray:
    """Line integrals (N, rows, columns) through a volume, for the views and unit of a set of X-rays."""
    centre = xrays.isocentre or (0.0, 0.0, 0.0)
    mu = torch.from_numpy(hu_to_mu(volume.array.astype(np.float32)))
    with torch.inference_mode():
        return ProjectionOperator(volume.grid, xrays.geometry, xrays.views, centre)(mu[None])[0].numpy()


def _parse_views(views: Sequence[str | float | View]) -> tuple[View, ...]:
    try:
        return tuple(View.parse(view) for view in views)
    except ValueError as error:
        raise BadInput("views", str(error)) from None


def _near(angle: float, other: float) -> bool:
    return abs((angle - other + 180) % 360 - 180) <= ANGLE_TOLERANCE
