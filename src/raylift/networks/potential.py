"""The potential d: residual 3D networks that assign a value to a volume."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch.nn.functional as F
from monai.networks.blocks.convolutions import ResidualUnit
from monai.networks.blocks.spatialattention import SpatialAttentionBlock
from torch import Tensor, nn

SIZES = 5  # resolutions of the paper's potential, which halves its maps four times
RESIDUE = 0.1  # factor of the residual in a residual block


class CompactPotential(nn.Module):
    """Volume (B, 1, D, H, W) → one value per volume (B,); Raylift's own, for small machines.

    It has four strided residual units, and no normalisation, so that a value depends on its own volume alone.

    Args:
        features: channels after the first unit; they double with each unit.
    """

    def __init__(self, features: int = 16) -> None:
        super().__init__()
        widths = [1] + [features * 2**k for k in range(4)]
        act = ("leakyrelu", {"negative_slope": 0.2})
        self.units = nn.Sequential(
            *(ResidualUnit(3, a, b, strides=2, norm=None, act=act) for a, b in itertools.pairwise(widths))
        )
        self.head = nn.Linear(widths[-1], 1)

    def forward(self, volume: Tensor) -> Tensor:
        """Return the values (B,) of volumes (B, 1, D, H, W) in [0, 1]."""
        out: Tensor = self.head(self.units(volume).mean((2, 3, 4)))
        return out[:, 0]


class PaperPotential(nn.Module):
    """Volume (B, 1, D, D, D) → one value per volume (B,), as in the published program.

    There are ten residual blocks at five resolutions with 32 to 512 channels, average pooling between the resolutions,
    spatial attention at the lowest one, and a linear layer on all of its features, so that a value depends on where
    structures are. Kaiming initialisation; 41.3 million weights at 64 voxels.

    Args:
        voxels: edge of the volumes, a multiple of 16.
        features: channels at the first resolution; they double with each.
    """

    def __init__(self, voxels: int, features: int = 32) -> None:
        super().__init__()
        widths = [features * 2**k for k in range(SIZES)]
        self.stem = nn.Conv3d(1, features, 3, padding=1)
        # The second block at a resolution outputs the channels of the next.
        after = [*widths[1:], widths[-1]]
        self.sizes = nn.ModuleList(
            nn.Sequential(_Residual(width, width), _Residual(width, wider))
            for width, wider in zip(widths, after, strict=True)
        )
        self.attention = SpatialAttentionBlock(3, widths[-1])
        self.head = nn.Linear(widths[-1] * (voxels // 2 ** (SIZES - 1)) ** 3, 1)
        for module in self.modules():
            if isinstance(module, (nn.Conv3d, nn.Linear)):
                nn.init.kaiming_normal_(module.weight, a=0.2)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, volume: Tensor) -> Tensor:
        """Return the values (B,) of volumes (B, 1, D, D, D) in [0, 1]."""
        maps = self.stem(volume)
        for k, size in enumerate(self.sizes):
            maps = size(F.avg_pool3d(maps, 2) if k else maps)
        out: Tensor = self.head(F.leaky_relu(self.attention(maps), 0.2).flatten(1))
        return out[:, 0]


class _Residual(nn.Module):
    """Maps (B, a, ...) → (B, b, ...): the shortcut, a 1³ convolution if a ≠ b, plus a tenth of two 3³ convolutions."""

    def __init__(self, a: int, b: int) -> None:
        super().__init__()
        self.first, self.second = nn.Conv3d(a, a, 3, padding=1), nn.Conv3d(a, b, 3, padding=1)
        self.shortcut = nn.Conv3d(a, b, 1, bias=False) if a != b else nn.Identity()

    def forward(self, maps: Tensor) -> Tensor:
        residue = self.second(F.leaky_relu(self.first(F.leaky_relu(maps, 0.2)), 0.2))
        out: Tensor = self.shortcut(maps) + RESIDUE * residue
        return out


# Each makes a potential from the edge of the volumes in voxels.
POTENTIALS: dict[str, Callable[[int], nn.Module]] = {
    "compact": lambda voxels: CompactPotential(),
    "paper": PaperPotential,
}
