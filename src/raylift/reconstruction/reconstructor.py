"""Reconstruction of a volume from X-rays with trained weights, and measures of how well it explains them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F

from raylift.config.recipe import DataConfig
from raylift.errors import BadInput, WrongUsage
from raylift.geometry import Beam, Camera, Geometry, View, VolumeGrid
from raylift.images.hounsfield import WINDOW, normalised_to_hu
from raylift.images.volume import Volume
from raylift.images.xray_set import XraySet, describe_geometry
from raylift.model.device import device_of
from raylift.model.weights import Weights, load_weights
from raylift.radiographs import Grey, Orientation, Radiograph
from raylift.radiographs.intake import read_radiographs
from raylift.radiographs.out_of_distribution import OOD_THRESHOLD
from raylift.radiographs.radiograph import ImageSize
from raylift.radiographs.sets import XrayInput, kind_of, read_xrays
from raylift.radiographs.tone_network import pretrained_tone_model
from raylift.reconstruction.reprojection import crossing_rays, reproject

if TYPE_CHECKING:
    from raylift.reconstruction.refinement import Refinement
    from raylift.reconstruction.tone import ToneCalibration

AIR_BELOW = -950.0  # HU; voxels up to here are air
EXACT_LIFTS = ("backproject", "repeat")
ERROR_TOLERANCE = 1.5  # times the largest error of a patient's volume from which a volume is not to be trusted
ANGLE_TOLERANCE = 2.0  # degrees between an X-ray's view and the view of the training that it matches


@dataclass(frozen=True)
class Reconstruction:
    """A volume with the X-rays that it was computed from, and measures of how far to trust it.

    Args:
        volume: Hounsfield units (z, y, x), float32, on a cube around the X-rays' isocentre (around the world's
            origin where that is not known).
        xrays: from which it was computed, on the weights' detector: finer X-rays are averaged to its pixels. Where they
            were aligned, their views are the aligned ones.
        reprojected: line integrals (N, rows, columns) through the volume.
        reprojection_error: mean absolute difference between `reprojected` and the X-rays, as a share of the X-rays'
            mean. What the rays cross outside of the cube counts as error, so even a perfect volume does not reach 0.
        notes: what a user should know, one sentence each; those that say not to trust the volume are the first.
        uncertainty: standard deviation of each voxel's error in HU before refinement, on the volume's grid; None where
            the weights predict none.
        ood_score: largest distance of an X-ray from those of the training, relative to patients who were left out of
            the training (see `raylift.radiographs.out_of_distribution`); None where the weights have no OOD detector.
        refinement: the refinement of which `volume` is the result; None without refinement.
        warnings: reasons not to trust the volume, one sentence each.
        error_inside: the re-projection error where rays cross the whole cube, so that little of it is due to what lies
            beside the cube.
    """

    volume: Volume
    xrays: XraySet
    reprojected: np.ndarray
    reprojection_error: float
    notes: tuple[str, ...]
    uncertainty: Volume | None = None
    ood_score: float | None = None
    refinement: Refinement | None = None
    warnings: tuple[str, ...] = ()
    error_inside: float = 0.0

    @property
    def trust(self) -> str:
        """A sentence on how far to trust the volume: re-projection error, distance from the training, uncertainty."""
        parts = ["do not trust the volume"] if self.warnings else []
        parts.append(f"the volume's own projections differ from the X-rays by {self.reprojection_error:.1%}")
        if self.refinement is not None:
            parts.append(f"by {self.refinement.error_after:.1%} with the refined surroundings")
        if self.ood_score is not None:
            parts.append(
                f"the X-rays are {self.ood_score:.1f} times as far from the training as the furthest patient left out "
                "of it"
            )
        if self.uncertainty is not None:
            body = self.volume.array > AIR_BELOW
            usual = float(np.sqrt(np.square(self.uncertainty.array[body]).mean())) if body.any() else 0.0
            when = " before refinement" if self.refinement is not None else ""
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
        weights: as loaded by `raylift.model.weights.load_weights`.
        device: on which to compute; by default the first GPU, or else the CPU.
    """

    def __init__(self, weights: Weights, device: torch.device | str | None = None) -> None:
        self.weights = weights
        self.device = device_of(device)
        self.lifted_network = weights.lifted_network.to(self.device)

    @classmethod
    def from_pretrained(
        cls, weights: str | Path | None = None, device: torch.device | str | None = None
    ) -> Reconstructor:
        """Return a reconstructor with the weights of a file, folder, run or name; by default the embedded `chest-64`.

        Raises BadInput, through `load_weights`, where the weights are missing or damaged; and WrongUsage, through
        `device_of`, where the device cannot be used.
        """
        return cls(load_weights(weights), device)

    @property
    def geometry(self) -> Geometry:
        """The X-ray geometry that the weights were trained for."""
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
        sizes: Sequence[ImageSize | None] | None = None,
    ) -> Reconstruction:
        """Reconstruct one patient.

        Raises BadInput, through `read` and `match`, where an image is unusable, or where the views or the geometry do
        not fit the weights.

        Args:
            xrays: a set of X-rays; or a folder that `raylift drr` wrote; or image files; or line integrals
                (N, rows, columns) that show the weights' detector from edge to edge, row 0 superior.
            views: one angle or name per file or image, in the same order. By default, files have the views that they
                declare or look like, and arrays those of the weights. A set and a folder contain their views.
            refine: bring the volume into agreement with the X-rays (`raylift.reconstruction.refinement.refine`).
            align: estimate small displacements of the views (`raylift.reconstruction.alignment.align`), and compute the
                volume again with the displaced views.
            seconds: time limit of the refinement.
            progress: called during refinement with a note, the number of iterations done and their total.
            sizes: of the images on the detector, one per file; None for what the file declares.

        Returns:
            The volume with its X-rays, their re-projections, and measures of how far to trust it.

        Raises:
            WrongUsage: views were given for a set or a folder; or `align` was given with weights whose lift does not
                support displaced views.
        """
        if align and self.lifted_network.lift_name not in EXACT_LIFTS:
            raise WrongUsage(
                f"align: the lift '{self.lifted_network.lift_name}' of the weights does not support displaced views"
            )
        matched = self.match(self._read(xrays, views, sizes))
        calibration = None
        if any(matched.tones):
            from raylift.reconstruction.tone import ToneCalibration

            calibration = ToneCalibration(matched)
            matched = calibration.solve()
        volume, uncertainty = self._translate(matched)
        if calibration is not None:
            matched, volume, uncertainty = self._calibrate_tones(calibration, matched, volume, uncertainty)
        refined = None
        if align:
            from raylift.reconstruction import alignment

            for motions in alignment.ROUNDS:
                matched = replace(matched, views=alignment.align(volume, matched, motions))
                volume, uncertainty = self._translate(matched)
        if refine:
            from raylift.reconstruction import refinement

            refined = refinement.refine(volume, matched, seconds, progress, uncertainty)
            volume = refined.volume
        reprojected = reproject(volume, matched)
        error = float(np.abs(reprojected - matched.images).mean() / max(float(matched.images.mean()), 1e-6))
        ood_detector, ood_score = self.weights.ood_detector, None
        if ood_detector is not None:
            ood_score = float(ood_detector.distances(matched.images, matched.views).max())
        inside = _error_inside(volume, matched, reprojected)
        warnings = (*matched.warnings, *_warnings(inside, self.weights.info.usual_error, ood_score))
        notes = (*(f"do not trust the volume: {warning}" for warning in warnings), *_notes(matched))
        return Reconstruction(
            volume, matched, reprojected, error, notes, uncertainty, ood_score, refined, warnings, inside
        )

    def _calibrate_tones(
        self, calibration: ToneCalibration, xrays: XraySet, volume: Volume, uncertainty: Volume | None
    ) -> tuple[XraySet, Volume, Volume | None]:
        """Return X-rays whose tone curves are calibrated by the volume, with their volume and its uncertainty.

        A round whose volume does not explain the pictures better than the one before is not used.
        """
        from raylift.reconstruction import tone

        projections, crossing = tone.project_with_surroundings(volume, xrays)
        disagreement = tone.disagreement(xrays, projections, crossing)
        for _ in range(tone.ROUNDS):
            changed = calibration.solve(projections, crossing)
            translated = self._translate(changed)
            projections, crossing = tone.project_with_surroundings(translated[0], changed)
            current = tone.disagreement(changed, projections, crossing)
            if not current < disagreement:
                break
            xrays, (volume, uncertainty), disagreement = changed, translated, current
        return xrays, volume, uncertainty

    def _translate(self, xrays: XraySet) -> tuple[Volume, Volume | None]:
        """Return the network's volume and its uncertainty in HU, (z, y, x) on the cube around the X-rays' isocentre.

        The uncertainty is None where the weights predict none.
        """
        images = torch.from_numpy(xrays.images).float().to(self.device)[None]
        with torch.no_grad():  # not inference_mode: lifts and projectors cached here must serve gradients later
            normalised, *deviation = self.lifted_network(images, xrays.centred_cameras)[0].float().cpu().numpy()
        cube = self.lifted_network.grid
        centre = xrays.isocentre or (0.0, 0.0, 0.0)
        grid = VolumeGrid.cube(centre, cube.shape[0] * cube.spacing[0], cube.shape[0])
        volume = Volume(normalised_to_hu(normalised.clip(0, 1)), grid)
        if not deviation:
            return volume, None
        factor = self.weights.info.uncertainty_factor
        # A Laplace distribution's standard deviation is √2 times its mean absolute value.
        return volume, Volume(factor * 2**0.5 * (WINDOW[1] - WINDOW[0]) * deviation[0], grid)

    def _read(
        self,
        xrays: XraySet | str | Path | Sequence[str | Path] | np.ndarray,
        views: Sequence[str | float | View] | None,
        sizes: Sequence[ImageSize | None] | None,
    ) -> XraySet:
        """Return X-rays of any form that `__call__` takes as a set.

        Raises:
            BadInput: an image is unusable, has an unknown view, or there are not as many views as images.
            WrongUsage: views were given for a set or a folder.
        """
        has_views = isinstance(xrays, XraySet)
        if isinstance(xrays, (str, Path)):
            has_views = kind_of([Path(xrays)]) is not XrayInput.IMAGES
        if views is not None and has_views:
            raise WrongUsage(f"views: {'the set' if isinstance(xrays, XraySet) else xrays} already contains its views")
        if isinstance(xrays, XraySet):
            return xrays
        if isinstance(xrays, (str, Path)):
            if has_views:
                return read_xrays(xrays)
            xrays = [xrays]
        parsed = None if views is None else _parse_views(views)
        if isinstance(xrays, np.ndarray):
            parsed = self.lifted_network.views if parsed is None else parsed
            images = np.ascontiguousarray(xrays, np.float32)
            if (
                images.ndim != 3
                or not images.size
                or images.shape[1] != images.shape[2]
                or not np.isfinite(images).all()
            ):
                raise BadInput("X-rays", f"an array {images.shape}", "give finite numbers (N, rows, rows)")
            if len(images) != len(parsed):
                raise BadInput(f"{len(images)} X-rays", f"{len(parsed)} views given", "give one view per X-ray")
            return XraySet(images, parsed, self.geometry.with_pixels(images.shape[1]))
        return self.read(xrays, parsed, sizes=sizes)

    def read(
        self,
        files: Sequence[str | Path],
        views: Sequence[View | None] | None = None,
        orientations: Sequence[Orientation | None] | None = None,
        decoded: Sequence[Radiograph | Grey] | None = None,
        sizes: Sequence[ImageSize | None] | None = None,
    ) -> XraySet:
        """Read radiographs onto the weights' detector; see `raylift.radiographs.intake.read_radiographs`.

        Args:
            files: X-ray images, see `read_radiographs`.
            views: one per file, see `read_radiographs`.
            orientations: one per file, see `read_radiographs`.
            decoded: decoded files, see `read_radiographs`.
            sizes: one per file, see `read_radiographs`.

        Returns:
            The X-rays.
        """
        data = self.weights.info.recipe.data
        return read_radiographs(
            files,
            views,
            self.geometry,
            geometry_from_files=bool(data.any_geometry),
            ood_detector=self.weights.ood_detector,
            orientations=orientations,
            decoded=decoded,
            sizes=sizes,
            tone_model=pretrained_tone_model(),
        )

    def match(self, xrays: XraySet) -> XraySet:
        """Return X-rays in the order of the weights' views; finer ones are averaged to the weights' pixels.

        Raises:
            BadInput: there are no X-rays, they are not finite, or the weights were not trained for their views or
                geometry.
        """
        if not len(xrays.views) or not np.isfinite(xrays.images).all():
            raise BadInput("X-rays", "none, or not finite", "give at least one, without NaN or infinity")
        geometry, data = xrays.geometry, self.weights.info.recipe.data
        trained = replace(self.geometry, pixels=geometry.pixels)
        same = np.allclose(list(trained.to_dict().values()), list(geometry.to_dict().values()), rtol=1e-3)
        if (not same or xrays.own_cameras) and not data.any_geometry:
            raise BadInput(
                "X-rays",
                f"taken with {describe_geometry(geometry)}, the weights are for {describe_geometry(trained)}",
                "use other weights",
            )
        cube = self.lifted_network.grid
        if any(_inside(camera, cube) for camera in xrays.centred_cameras):
            raise BadInput(
                "X-rays",
                f"taken with {describe_geometry(geometry)}: the source lies inside the volume",
                "give distances in mm",
            )
        order = list(range(len(xrays.views))) if data.any_views else self._order(xrays.views, data)
        pixels = self.geometry.pixels
        if geometry.pixels > pixels:
            # Averaged here already, since re-projection onto a radiograph's millions of pixels exhausts memory.
            finer = torch.from_numpy(xrays.images).float()
            xrays = xrays.with_images(F.interpolate(finer[None], (pixels, pixels), mode="area")[0].numpy())
        return replace(
            xrays,
            images=xrays.images[order],
            views=tuple(xrays.views[k] for k in order),
            tones=tuple(xrays.tones[k] for k in order if xrays.tones),
            own_cameras=tuple(xrays.own_cameras[k] for k in order if xrays.own_cameras),
        )

    def _order(self, views: Sequence[View], data: DataConfig) -> list[int]:
        """Return the indices of the views that match the weights' views, in the weights' order.

        Args:
            views: of the X-rays.
            data: the recipe's settings of its data.

        Raises:
            BadInput: a view of the weights is missing, or there are other views.
        """
        targets, matches = self.lifted_network.views, dict[int, int]()
        either = data.opposite_views and data.pairs == "online"
        # A view from the opposite side is used only where no X-ray is from the side of the training.
        for opposite in (False, True) if either else (False,):
            for index, target in enumerate(targets):
                angle = (target.opposite if opposite else target).angle
                near = [k for k, view in enumerate(views) if _near(view.angle, angle) and k not in matches.values()]
                if near and index not in matches:
                    matches[index] = near[0]
        order = [matches[index] for index in sorted(matches)]
        if len(order) != len(targets) or len(views) != len(targets):
            names = ", ".join(view.name for view in views)
            target_names = ", ".join(f"{view.name} ({view.angle:g}°)" for view in targets)
            raise BadInput(
                f"X-rays of views {names}", f"the weights are for {target_names}", "give these views, or other weights"
            )
        return order


def _error_inside(volume: Volume, xrays: XraySet, reprojected: np.ndarray) -> float:
    """Return the mean absolute difference between X-rays and re-projections, as a share of the X-rays' mean.

    Only the rays count that cross (nearly) the whole cube.
    """
    inside = crossing_rays(volume.grid, xrays)
    difference, total = np.abs(reprojected - xrays.images)[inside].sum(), xrays.images[inside].sum()
    return float(difference / max(float(total), 1e-6))


def _warnings(error: float, usual_error: float | None, ood_score: float | None) -> Iterator[str]:
    """Yield the reasons not to trust a volume, given its error where rays cross the whole cube."""
    if usual_error is not None and error > ERROR_TOLERANCE * usual_error:
        yield (
            f"it does not explain its X-rays ({error:.0%} is unexplained, {usual_error:.0%} at most in patients); "
            "check their views, their orientation and their pixel size"
        )
    if ood_score is not None and ood_score > OOD_THRESHOLD:
        yield (
            "the X-rays are unlike those of the training "
            f"({ood_score:.1f} times as far from them as any patient's left out of it); "
            "check that they show an upright chest, with bone bright, in the views as named"
        )


def _notes(xrays: XraySet) -> Iterator[str]:
    """Yield the X-rays' notes, and those on their reconstruction."""
    yield from xrays.notes
    if xrays.isocentre is None:
        yield "the X-rays have no isocentre: the volume is centred on the world's origin"
    if len(xrays.views) == 1:
        yield "one X-ray alone: depths along its rays are those usual in the training"


def _parse_views(views: Sequence[str | float | View]) -> tuple[View, ...]:
    """Return views by their angles or names.

    Raises:
        BadInput: one is neither.
    """
    try:
        return tuple(View.parse(view) for view in views)
    except ValueError as error:
        raise BadInput("views", str(error)) from None


def _inside(camera: Camera, cube: VolumeGrid) -> bool:
    """Return whether a camera's source is no further along its axis than the edges of a cube around the origin."""
    edge = cube.shape[0] * cube.spacing[0] / 2**0.5
    return camera.beam is not Beam.PARALLEL and float(camera.axis @ camera.source) <= edge


def _near(angle: float, other: float) -> bool:
    """Return whether two angles in degrees differ by no more than `ANGLE_TOLERANCE`."""
    return abs((angle - other + 180) % 360 - 180) <= ANGLE_TOLERANCE
