"""The map g of the paper: X-rays are lifted, concatenated in channels, and translated volume to volume."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from raylift.geometry import Geometry, View, VolumeGrid
from raylift.lift import LIFTS, Lift, depth_axis
from raylift.networks.registry import build

# A chest's line integrals run from 0 to about 8; the network sees them divided by this.
XRAY_SCALE = 4.0
ISOCENTRE = (0.0, 0.0, 0.0)  # the cube is centred on the isocentre, so only relative positions matter


class Mapping(nn.Module):
    """X-rays (B, N, rows, columns) → volume (B, 1, D, H, W).

    Args:
        network: name in the registry, with `feature_size` and `window_size`; or a network, for which these say nothing.
        lift: name of the lift.
        geometry: X-ray unit, with the pixels that the lift samples.
        views: one per X-ray.
        voxels: edge of the cube in voxels.
        cube_mm: edge of the cube in mm.
        checkpointing: as in the registry.
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
    ) -> None:
        super().__init__()
        self.lift_name, self.geometry, self.views = lift, geometry, tuple(views)
        self.grid = VolumeGrid.cube(ISOCENTRE, cube_mm, voxels)
        self.network = (
            network
            if isinstance(network, nn.Module)
            else build(
                network,
                in_channels=len(self.views),
                out_channels=1,
                feature_size=feature_size,
                window_size=window_size,
                voxels=voxels,
                axes=[depth_axis(view) for view in self.views],
                checkpointing=checkpointing,
            )
        )
        self._lifts: dict[View, Lift] = {}  # outside of the module tree: nothing here is learned

    def lift(self, xrays: Tensor, views: Sequence[View] | None = None, patients: Sequence[int] | None = None) -> Tensor:
        """V_cat of equation 1: (B, N, rows, columns) → (B, N, D, H, W); finer X-rays are averaged down first.

        For the `image` lift, (B, N, D, W). `patients` as for `Lift.forward`.
        """
        pixels = self.geometry.pixels
        if xrays.shape[-1] != pixels:
            xrays = F.interpolate(xrays, (pixels, pixels), mode="area")
        lifted = [
            self._lift(view).to(xrays.device)(xray, patients)
            for view, xray in zip(views or self.views, (xrays / XRAY_SCALE).split(1, 1), strict=True)
        ]
        return torch.cat(lifted, 1)

    def _lift(self, view: View) -> Lift:
        if view not in self._lifts:
            self._lifts[view] = LIFTS[self.lift_name](self.grid, self.geometry, [view], ISOCENTRE)
        return self._lifts[view]

    def forward(self, xrays: Tensor, views: Sequence[View] | None = None) -> Tensor:
        """Translate.

        Args:
            xrays: line integrals (B, N, rows, columns) of the geometry's detector, in the order of the views.
            views: where the X-rays were taken, if not at the views the map was made for.

        Returns:
            (B, 1, D, H, W) = (B, 1, z, y, x) in the network's window, [0, 1] but not clipped to it.
        """
        out: Tensor = self.network(self.lift(xrays, views))
        return out
