"""The potential d: residual 3D networks that price volumes."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch.nn.functional as F
from monai.networks.blocks import ResidualUnit, SpatialAttentionBlock
from torch import Tensor, nn

SIZES = 5  # of the paper's potential: it halves its maps four times
RESIDUE = 0.1  # what a residual block adds is multiplied by this


class CompactPotential(nn.Module):
    """Volume (B, 1, D, H, W) → one price per volume (B,). Ours, for small machines.

    Four strided residual units, no normalisation, so that a price depends on its own volume alone.

    Args:
        features: channels after the first unit; they double with each.
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
        """(B, 1, D, H, W) in [0, 1] → (B,)."""
        out: Tensor = self.head(self.units(volume).mean((2, 3, 4)))
        return out[:, 0]


class PaperPotential(nn.Module):
    """Volume (B, 1, D, D, D) → one price per volume (B,), as the published program has it.

    Ten residual blocks at five sizes, 32 to 512 channels, average pooling between the sizes, attention over the places
    of the smallest, and a linear layer on all of its values, so that a price depends on where things are. Kaiming
    initialisation. 41.3 million weights at 64 voxels.

    Args:
        voxels: edge of the volumes, a multiple of 16.
        features: channels at the first size; they double with each.
    """

    def __init__(self, voxels: int, features: int = 32) -> None:
        super().__init__()
        widths = [features * 2**k for k in range(SIZES)]
        self.stem = nn.Conv3d(1, features, 3, padding=1)
        # The second block of a size has the channels of the next.
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
        """(B, 1, D, D, D) in [0, 1] → (B,)."""
        maps = self.stem(volume)
        for k, size in enumerate(self.sizes):
            maps = size(F.avg_pool3d(maps, 2) if k else maps)
        out: Tensor = self.head(F.leaky_relu(self.attention(maps), 0.2).flatten(1))
        return out[:, 0]


class _Residual(nn.Module):
    """Maps (B, a, ...) → (B, b, ...): a 1³ convolution where a is not b, and a tenth of two 3³ convolutions."""

    def __init__(self, a: int, b: int) -> None:
        super().__init__()
        self.first, self.second = nn.Conv3d(a, a, 3, padding=1), nn.Conv3d(a, b, 3, padding=1)
        self.shortcut = nn.Conv3d(a, b, 1, bias=False) if a != b else nn.Identity()

    def forward(self, maps: Tensor) -> Tensor:
        residue = self.second(F.leaky_relu(self.first(F.leaky_relu(maps, 0.2)), 0.2))
        out: Tensor = self.shortcut(maps) + RESIDUE * residue
        return out


# voxels of a volume's edge -> a potential
POTENTIALS: dict[str, Callable[[int], nn.Module]] = {
    "compact": lambda voxels: CompactPotential(),
    "paper": PaperPotential,
}
