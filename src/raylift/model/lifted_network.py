"""The map g: X-rays are lifted, brought together in channels, and translated volume to volume."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from raylift.config.recipe import Recipe
from raylift.drr.operator import ProjectionOperator
from raylift.geometry import Geometry, View, VolumeGrid
from raylift.images.hounsfield import normalised_to_mu
from raylift.lifting.coordinates import depth_axis
from raylift.lifting.lift import Lift
from raylift.lifting.registry import build_lift
from raylift.lifting.scaling import XRAY_SCALE, as_pictures
from raylift.lifting.view_harmonics import CHANNELS, harmonic_channels, harmonics
from raylift.model.ensemble import Ensemble
from raylift.networks.registry import build

ISOCENTRE = (0.0, 0.0, 0.0)  # the cube is centred on the isocentre, so only relative positions matter
KEPT = 64  # lifts of so many views and units stay in memory, 2 MB each at 64³


class LiftedNetwork(nn.Module):
    """X-rays (B, N, rows, columns) → volume (B, 1, D, H, W).

    Args:
        network: name in the registry, with `feature_size`, `window_size` and `members`; or a network, for which these
            say nothing.
        lift: name of the lift.
        geometry: X-ray unit, with the pixels that the lift samples.
        views: one per X-ray.
        voxels: edge of the cube in voxels.
        cube_mm: edge of the cube in mm.
        checkpointing: as in the registry.
        aggregation: "concatenate", a channel for each view; or "harmonics", any number of views at any angles.
        passes: how often the network is asked. It sees its own volume then, empty at first, and the part of the X-rays
            that this does not explain.
        uncertainty: the network also says how far each voxel is off, in a second channel.
        members: how many networks answer together.
        pictures: the network sees X-rays as `as_pictures` makes them.
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
            built = [
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
            self.network = built[0] if members == 1 else Ensemble(built)
        # Outside of the module tree: nothing here is learned.
        self._lift = lru_cache(KEPT)(lambda view, unit: build_lift(lift, self.grid, unit, [view], ISOCENTRE))

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
        """Make the lifted network that a recipe describes, with random weights or the given network.

        Args:
            recipe: of the training.
            geometry: X-ray unit, with the pixels that the lift samples.
            voxels: edge of the cube in voxels.
            cube_mm: edge of the cube in mm.
            members: how many networks answer together.
            network: in place of the one that the recipe names.
        """
        described = recipe.network
        return cls(
            network=network or described.name,
            feature_size=described.feature_size,
            window_size=described.window_size,
            checkpointing=described.checkpointing,
            lift=recipe.lift,
            geometry=geometry,
            views=recipe.view_list,
            voxels=voxels,
            cube_mm=cube_mm,
            aggregation=recipe.aggregation,
            iterations=described.iterations,
            uncertainty=described.uncertainty,
            members=members,
            pictures=recipe.data.pictures,
        )

    def lift(
        self,
        xrays: Tensor,
        views: Sequence[View] | None = None,
        geometry: Geometry | None = None,
        patients: Sequence[int] | None = None,
    ) -> Tensor:
        """Equation 1, N lifted views: (B, N, rows, columns) → (B, N, D, H, W); finer X-rays are averaged down first.

        For the `image` lift, (B, N, D, W). `patients` as for `Lift.forward`, the rest as for `forward`.
        """
        lifts = self._lifts(views, geometry, xrays.device)
        images = (self._averaged(xrays) / XRAY_SCALE).split(1, 1)
        return torch.cat([one(image, patients) for one, image in zip(lifts, images, strict=True)], 1)

    def inputs(
        self,
        xrays: Tensor,
        views: Sequence[View] | None = None,
        geometry: Geometry | None = None,
        volume: Tensor | None = None,
        patients: Sequence[int] | None = None,
    ) -> Tensor:
        """V_cat, what the network sees: (B, N, rows, columns) → (B, channels, D, H, W).

        Args:
            xrays: as for `forward`, with the two arguments after it.
            volume: what the network has made of them before, (B, 1, D, H, W) in [0, 1]; nothing by default.
            patients: as for `Lift.forward`.
        """
        views, xrays = views or self.views, self._averaged(xrays)
        lifted = self.lift(xrays, views, geometry, patients)
        concatenated = self.aggregation == "concatenate"
        if concatenated:
            channels = [lifted]
        else:
            visible = torch.cat([lift.visible for lift in self._lifts(views, geometry, xrays.device)])
            channels = [harmonic_channels(lifted, visible, views)]
        if self.iterations > 1:
            if volume is None:
                volume = xrays.new_zeros(len(xrays), 1, *self.grid.shape)
            unexplained = self.lift(xrays - self.project(volume, views, geometry), views, geometry)
            channels += [volume, unexplained if concatenated else harmonics(unexplained, views, 1)]
        return torch.cat(channels, 1)

    def project(self, volume: Tensor, views: Sequence[View] | None = None, geometry: Geometry | None = None) -> Tensor:
        """Line integrals (B, N, rows, columns) through volumes (B, 1, D, H, W) in [0, 1]."""
        A = ProjectionOperator(self.grid, self._unit(geometry), views or self.views, ISOCENTRE)
        return A(normalised_to_mu(volume[:, 0].float()))

    def forward(self, xrays: Tensor, views: Sequence[View] | None = None, geometry: Geometry | None = None) -> Tensor:
        """Translate.

        Args:
            xrays: line integrals (B, N, rows, columns) of the geometry's detector, in the order of the views.
            views: where the X-rays were taken, if not at the views the map was made for.
            geometry: the unit that took them, if not the one the map was made for; its pixels do not matter.

        Returns:
            (B, 1, D, H, W) = (B, 1, z, y, x) in the network's window, [0, 1] but not clipped to it. With `uncertainty`
            (B, 2, D, H, W): then the mean absolute error that is expected, in units of the window.
        """
        out = self.translate(self.network, self.seen(xrays), views, geometry, self.iterations)
        assert out is not None
        return out

    def seen(self, xrays: Tensor) -> Tensor:
        """X-rays (B, N, rows, columns) as the network was trained to see them: line integrals, or pictures."""
        return as_pictures(xrays) if self.pictures else xrays

    def translate(
        self,
        network: Callable[[Tensor], Tensor],
        xrays: Tensor,
        views: Sequence[View] | None,
        geometry: Geometry | None,
        iterations: int,
    ) -> Tensor | None:
        """`forward` with another network, asked so many times; None after no pass."""
        out = volume = None
        for _ in range(iterations):
            out = self.finish(network(self.inputs(xrays, views, geometry, volume)))
            volume = out[:, :1].float().clamp(0, 1)
        return out

    def finish(self, out: Tensor) -> Tensor:
        """What the network says, its second channel made positive."""
        if not self.uncertainty:
            return out
        volume, spread = out.split(1, 1)
        return torch.cat([volume, F.softplus(spread.float() - 3).to(volume) + 1e-3], 1)

    def _averaged(self, xrays: Tensor) -> Tensor:
        pixels = (self.geometry.pixels,) * 2
        return xrays if xrays.shape[2:] == pixels else F.interpolate(xrays, pixels, mode="area")

    def _unit(self, geometry: Geometry | None) -> Geometry:
        return (geometry or self.geometry).with_pixels(self.geometry.pixels)

    def _lifts(self, views: Sequence[View] | None, geometry: Geometry | None, device: torch.device) -> list[Lift]:
        unit = self._unit(geometry)
        return [self._lift(view, unit).to(device) for view in views or self.views]
