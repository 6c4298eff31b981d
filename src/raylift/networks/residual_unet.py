"""A residual U-Net that works at half the volume's resolution, with enough channels to use a processor efficiently."""

from __future__ import annotations

import itertools
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import convert_conv3d_weight_memory_format

from raylift.networks.layers.normalisation import SLOPE
from raylift.networks.swin_unetr import DecoderBlock, ResidualBlock

WIDTHS = (6, 4, 2, 1, 0.5)  # of the stages from the coarsest, as multiples of the feature size
COARSEST = 4  # smallest edge of the coarsest stage
FINE = 8  # channels at full resolution


class ResidualUNet(nn.Module):
    """(B, in, D, H, W) → (B, out, D, H, W), any real value, with the blocks of Swin UNETR's encoder and decoder.

    The first stage has half the volume's resolution, and each further stage half that of the one before, down to an
    edge of 4 to 7, with five stages at most. A convolution at full resolution smooths the output. Stages are counted
    from the coarsest, so that a network for twice as many voxels has the same stages and one more, and can be
    initialised with the smaller one's weights.

    Args:
        in_channels: channels of the lifted views.
        out_channels: channels of the volume.
        feature_size: width of the fourth stage from the coarsest, the first at 64³; even.
        voxels: edge of the volume, a multiple of 2 to the power of the number of stages (16 at 64³, 32 at 128³).

    Raises:
        ValueError: the edge is another.
    """

    def __init__(self, in_channels: int, out_channels: int, feature_size: int, voxels: int) -> None:
        super().__init__()
        stages = min(len(WIDTHS), int(math.log2(voxels / COARSEST)))
        if stages < 1 or voxels % 2**stages:
            raise ValueError(f"{voxels} voxels do not fit {stages} stages, each of half the resolution")
        widths = [round(width * feature_size) for width in WIDTHS[:stages]]
        finer = [*widths[1:], in_channels]
        self.down = nn.ModuleList(nn.Conv3d(a, b, 2, 2, bias=False) for a, b in zip(finer, widths, strict=True))
        self.encoder = nn.ModuleList(ResidualBlock(width, width) for width in widths)
        self.bottom = ResidualBlock(widths[0], widths[0])
        self.decoder = nn.ModuleList(DecoderBlock(a, b) for a, b in itertools.pairwise(widths))
        self.up = nn.ConvTranspose3d(widths[-1], FINE, 2, 2)
        self.out = nn.Conv3d(FINE, out_channels, 3, padding=1)
        convert_conv3d_weight_memory_format(self, torch.channels_last_3d)

    def forward(self, volume: Tensor) -> Tensor:
        """Return volumes (B, out_channels, D, H, W) for lifted views (B, in_channels, D, H, W)."""
        maps, skips = volume.contiguous(memory_format=torch.channels_last_3d), list[Tensor]()
        for down, block in zip(reversed(self.down), reversed(self.encoder), strict=True):
            maps = block(down(maps))
            skips.append(maps)
        maps = self.bottom(maps)
        for block, skip in zip(self.decoder, reversed(skips[:-1]), strict=True):
            maps = block(maps, skip)
        out: Tensor = self.out(F.leaky_relu(self.up(maps), SLOPE))
        return out
