"""A residual U-Net that works at half the volume's resolution, where channels are wide enough for a processor."""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import convert_conv3d_weight_memory_format

from raylift.networks.normalisation import SLOPE
from raylift.networks.swin_unetr import DecoderBlock, ResidualBlock

WIDTHS = (1, 2, 4, 6)  # of the stages, times the feature size
FINE = 8  # channels at full resolution


class ResidualUNet(nn.Module):
    """(B, in, D, H, W) → (B, out, D, H, W), any real value; blocks are those of Swin UNETR's encoder and decoder.

    The first of four stages has half the volume's resolution; a convolution at full resolution smooths what comes out.

    Args:
        in_channels: channels of the lifted views.
        out_channels: channels of the volume.
        feature_size: width of the first stage.

    Spatial sizes must be multiples of 16.
    """

    def __init__(self, in_channels: int, out_channels: int, feature_size: int) -> None:
        super().__init__()
        widths = [width * feature_size for width in WIDTHS]
        steps = list(itertools.pairwise([in_channels, *widths]))
        self.down = nn.ModuleList(nn.Conv3d(a, b, 2, 2, bias=False) for a, b in steps)
        self.encoder = nn.ModuleList(ResidualBlock(width, width) for width in widths)
        self.bottom = ResidualBlock(widths[-1], widths[-1])
        self.decoder = nn.ModuleList(DecoderBlock(b, a) for a, b in reversed(steps[1:]))
        self.up = nn.ConvTranspose3d(feature_size, FINE, 2, 2)
        self.out = nn.Conv3d(FINE, out_channels, 3, padding=1)
        convert_conv3d_weight_memory_format(self, torch.channels_last_3d)

    def forward(self, volume: Tensor) -> Tensor:
        """(B, in_channels, D, H, W) → (B, out_channels, D, H, W)."""
        maps, kept = volume.contiguous(memory_format=torch.channels_last_3d), list[Tensor]()
        for down, block in zip(self.down, self.encoder, strict=True):
            maps = block(down(maps))
            kept.append(maps)
        maps = self.bottom(maps)
        for block, beside in zip(self.decoder, reversed(kept[:-1]), strict=True):
            maps = block(maps, beside)
        made: Tensor = self.out(F.leaky_relu(self.up(maps), SLOPE))
        return made
