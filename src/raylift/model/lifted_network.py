"""The lifted network g: X-rays are lifted to channels of a volume, which a network translates to the result."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from raylift.config.recipe import Recipe
from raylift.drr.operator import ProjectionOperator
from raylift.geometry import Camera, Geometry, View, VolumeGrid
from raylift.images.hounsfield import normalised_to_mu
from raylift.lifting.coordinates import depth_axis
from raylift.lifting.lift import Lift
from raylift.lifting.registry import build_lift
from raylift.lifting.scaling import XRAY_SCALE, as_pictures
from raylift.lifting.view_harmonics import CHANNELS, harmonic_channels, harmonics
from raylift.model.ensemble import Ensemble
from raylift.networks.registry import build

ISOCENTRE = (0.0, 0.0, 0.0)  # the cube is centred on the isocentre, so only relative positions matter
CACHED_LIFTS = 64  # lifts that stay in memory, one for each view and geometry; 2 MB each at 64³


class LiftedNetwork(nn.Module):
    """A lift with a network behind it: X-rays (B, N, rows, columns) → volume (B, 1, D, H, W).

    Args:
        network: name in the registry; or a network, for which `feature_size`, `window_size`, `checkpointing` and
            `members` have no effect.
        feature_size: see `raylift.networks.registry.build`.
        window_size: see `raylift.networks.registry.build`.
        lift: name of the lift.
        geometry: X-ray geometry, with the pixels that the lift samples.
        views: one per X-ray.
        voxels: edge of the cube in voxels.
        cube_mm: edge of the cube in mm.
        checkpointing: see `raylift.networks.registry.build`.
        aggregation: "concatenate", one channel for each view; or "harmonics", any number of views at any angles.
        iterations: passes of the network. If there is more than one, the network also sees its volume of the pass
            before, at first zeros, and the lifted part of the X-rays that this volume does not explain.
        uncertainty: the network also predicts how far each voxel is off, in a second channel.
        members: number of networks in the ensemble.
        pictures: the network sees X-rays converted by `as_pictures`.
    """

    def __init__(
        self,
        *,
        network: str | nn.Module,
        feature_size: int,
        window_size: int,
        lift: str,
        geometry: Geometry,
        views: Sequence[View],
        voxels: int,
        cube_mm: float,
        checkpointing: bool = False,
        aggregation: str = "concatenate",
        iterations: int = 1,
        uncertainty: bool = False,
        members: int = 1,
        pictures: bool = False,
    ) -> None:
        super().__init__()
        self.lift_name, self.geometry, self.views = lift, geometry, tuple(views)
        self.aggregation, self.iterations, self.uncertainty, self.pictures = (
            aggregation,
            iterations,
            uncertainty,
            pictures,
        )
        self.grid = VolumeGrid.cube(ISOCENTRE, cube_mm, voxels)
        lifted = len(self.views) if aggregation == "concatenate" else CHANNELS
        unexplained = len(self.views) if aggregation == "concatenate" else 3
        if isinstance(network, nn.Module):
            self.network = network
        else:
            networks = [
                build(
                    network,
                    in_channels=lifted + (1 + unexplained if iterations > 1 else 0),
                    out_channels=2 if uncertainty else 1,
                    feature_size=feature_size,
                    window_size=window_size,
                    voxels=voxels,
                    axes=[depth_axis(view) for view in self.views],
                    checkpointing=checkpointing,
                )
                for _ in range(members)
            ]
            self.network = networks[0] if members == 1 else Ensemble(networks)
        # Cached outside of the module tree, since lifts have no parameters.
        self._lift = lru_cache(CACHED_LIFTS)(lambda camera: build_lift(lift, self.grid, [camera], ISOCENTRE))

    @classmethod
    def from_recipe(
        cls,
        recipe: Recipe,
        geometry: Geometry,
        voxels: int,
        cube_mm: float,
        *,
        members: int = 1,
        network: nn.Module | None = None,
    ) -> LiftedNetwork:
        """Return the lifted network that a recipe describes, with random weights or the given network.

        Args:
            recipe: of the training.
            geometry: X-ray geometry, with the pixels that the lift samples.
            voxels: edge of the cube in voxels.
            cube_mm: edge of the cube in mm.
            members: number of networks in the ensemble.
            network: replaces the one that the recipe names.
        """
        settings = recipe.network
        return cls(
            network=network or settings.name,
            feature_size=settings.feature_size,
            window_size=settings.window_size,
            checkpointing=settings.checkpointing,
            lift=recipe.lift,
            geometry=geometry,
            views=recipe.view_list,
            voxels=voxels,
            cube_mm=cube_mm,
            aggregation=recipe.aggregation,
            iterations=settings.iterations,
            uncertainty=settings.uncertainty,
            members=members,
            pictures=recipe.data.pictures,
        )

    def lift(
        self,
        xrays: Tensor,
        cameras: Sequence[Camera] | None = None,
        patients: Sequence[int] | None = None,
    ) -> Tensor:
        """Return the N lifted views of equation 1.

        Args:
            xrays: line integrals (B, N, rows, columns); finer ones than the lift samples are averaged down first.
            cameras: see `forward`.
            patients: see `Lift.forward`.

        Returns:
            (B, N, D, H, W); with the `image` lift, (B, N, D, W).
        """
        lifts = self._lifts(cameras, xrays.device)
        images = (self._average(xrays) / XRAY_SCALE).split(1, 1)
        return torch.cat([lift(image, patients) for lift, image in zip(lifts, images, strict=True)], 1)

    def inputs(
        self,
        xrays: Tensor,
        cameras: Sequence[Camera] | None = None,
        volume: Tensor | None = None,
        patients: Sequence[int] | None = None,
    ) -> Tensor:
        """Return the network's input V_cat, (B, channels, D, H, W).

        Args:
            xrays: see `forward`.
            cameras: see `forward`.
            volume: the network's result of the pass before, (B, 1, D, H, W) in [0, 1]; zeros by default.
            patients: see `Lift.forward`.
        """
        cameras, xrays = self._cameras(cameras), self._average(xrays)
        lifted = self.lift(xrays, cameras, patients)
        views = [camera.view for camera in cameras]
        concatenated = self.aggregation == "concatenate"
        if concatenated:
            channels = [lifted]
        else:
            visible = torch.cat([lift.visible for lift in self._lifts(cameras, xrays.device)])
            channels = [harmonic_channels(lifted, visible, views)]
        if self.iterations > 1:
            if volume is None:
                volume = xrays.new_zeros(len(xrays), 1, *self.grid.shape)
            unexplained = self.lift(xrays - self.project(volume, cameras), cameras)
            channels += [volume, unexplained if concatenated else harmonics(unexplained, views, 1)]
        return torch.cat(channels, 1)

    def project(self, volume: Tensor, cameras: Sequence[Camera] | None = None) -> Tensor:
        """Return the line integrals (B, N, rows, columns) through volumes (B, 1, D, H, W) in [0, 1]."""
        projection = ProjectionOperator(self.grid, self._cameras(cameras))
        return projection(normalised_to_mu(volume[:, 0].float()))

    def forward(self, xrays: Tensor, cameras: Sequence[Camera] | None = None) -> Tensor:
        """Return the volume that the network predicts from X-rays.

        Args:
            xrays: line integrals (B, N, rows, columns), in the order of the cameras.
            cameras: of the X-rays, in the frame of the cube, whose middle is (0, 0, 0); those of the training by
                default. How their detectors are divided into pixels does not matter.

        Returns:
            (B, 1, D, H, W) = (B, 1, z, y, x) in the network's window [0, 1], not clipped to it. With `uncertainty`
            (B, 2, D, H, W): the second channel is the expected absolute error, in units of the window.
        """
        out = self.translate(self.network, self.preprocess(xrays), cameras, self.iterations)
        assert out is not None
        return out

    def preprocess(self, xrays: Tensor) -> Tensor:
        """Return X-rays (B, N, rows, columns) as the network was trained on them: line integrals, or pictures."""
        return as_pictures(xrays) if self.pictures else xrays

    def translate(
        self,
        network: Callable[[Tensor], Tensor],
        xrays: Tensor,
        cameras: Sequence[Camera] | None,
        iterations: int,
    ) -> Tensor | None:
        """Return what `forward` returns, computed by another network.

        Args:
            network: maps the network's input to its output, in place of `self.network`.
            xrays: as returned by `preprocess`.
            cameras: see `forward`.
            iterations: passes of the network.

        Returns:
            The result of the last pass; None if `iterations` is 0.
        """
        out = volume = None
        for _ in range(iterations):
            out = self.finish(network(self.inputs(xrays, cameras, volume)))
            volume = out[:, :1].float().clamp(0, 1)
        return out

    def finish(self, out: Tensor) -> Tensor:
        """Return the network's output (B, channels, D, H, W), its second channel (the uncertainty) made positive."""
        if not self.uncertainty:
            return out
        volume, uncertainty = out.split(1, 1)
        return torch.cat([volume, F.softplus(uncertainty.float() - 3).to(volume) + 1e-3], 1)

    def _average(self, xrays: Tensor) -> Tensor:
        """Return X-rays averaged to the pixels that the lift samples."""
        pixels = (self.geometry.pixels,) * 2
        return xrays if xrays.shape[2:] == pixels else F.interpolate(xrays, pixels, mode="area")

    def _cameras(self, cameras: Sequence[Camera] | None) -> tuple[Camera, ...]:
        """Return cameras, or else the network's own, with the pixels that the lift samples."""
        if cameras is None:
            return self.geometry.cameras(self.views, ISOCENTRE)
        pixels = self.geometry.pixels
        return tuple(camera.with_pixels(pixels, pixels) for camera in cameras)

    def _lifts(self, cameras: Sequence[Camera] | None, device: torch.device) -> list[Lift]:
        """Return one lift per camera, on a device."""
        return [self._lift(camera).to(device) for camera in self._cameras(cameras)]
