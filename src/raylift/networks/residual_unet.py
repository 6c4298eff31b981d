"""A residual U-Net that works at half the volume's resolution, where channels are wide enough for a processor."""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from monai.networks.utils import pixelshuffle, pixelunshuffle
from torch import Tensor, nn
from torch.nn.utils import convert_conv3d_weight_memory_format

from raylift.networks.convolution import Conv3d
from raylift.networks.normalisation import SLOPE
from raylift.networks.swin_unetr import DecoderBlock, ResidualBlock

WIDTHS = (1, 2, 4, 6)  # of the stages, times the feature size
FINE = 8  # channels at full resolution


class ResidualUNet(nn.Module):
    """(B, in, D, H, W) → (B, out, D, H, W), any real value; blocks are those of Swin UNETR's encoder and decoder.

    2³ voxels side by side are the channels of one (Shi et al. 2016, whose sub-pixel convolution is the way back), on
    which four stages of halving resolution work; two convolutions at full resolution smooth what comes out, beside
    what came in.

    Args:
        in_channels: channels of the lifted views.
        out_channels: channels of the volume.
        feature_size: width of the first stage.

    Spatial sizes must be multiples of 16.
    """

    def __init__(self, in_channels: int, out_channels: int, feature_size: int) -> None:
        super().__init__()
        widths = [width * feature_size for width in WIDTHS]
        self.first = Conv3d(8 * in_channels, widths[0], 1, bias=False)
        self.down = nn.ModuleList(Conv3d(8 * a, b, 1, bias=False) for a, b in itertools.pairwise(widths))
        self.encoder = nn.ModuleList(ResidualBlock(width, width) for width in widths)
        self.bottom = ResidualBlock(widths[-1], widths[-1])
        self.decoder = nn.ModuleList(DecoderBlock(b, a) for a, b in itertools.pairwise(widths))
        self.last = nn.Conv3d(widths[0], 8 * out_channels, 1)
        self.smooth = nn.Conv3d(in_channels + out_channels, FINE, 3, padding=1)
        self.out = nn.Conv3d(FINE, out_channels, 3, padding=1)
        convert_conv3d_weight_memory_format(self, torch.channels_last_3d)

    def forward(self, volume: Tensor) -> Tensor:
        """(B, in_channels, D, H, W) → (B, out_channels, D, H, W)."""
        maps = self.first(_unshuffled(volume))
        kept = [maps := self.encoder[0](maps)]
        for down, block in zip(self.down, self.encoder[1:], strict=True):
            kept.append(maps := block(down(_unshuffled(maps))))
        maps = self.bottom(maps)
        for block, beside in zip(reversed(self.decoder), reversed(kept[:-1]), strict=True):
            maps = block(maps, beside)
        coarse = pixelshuffle(self.last(maps), 3, 2)
        fine = F.leaky_relu(self.smooth(_last(torch.cat([coarse, volume.to(coarse.dtype)], 1))), SLOPE)
        made: Tensor = coarse + self.out(fine)
        return made


def _unshuffled(maps: Tensor) -> Tensor:
    """(B, C, D, H, W) → (B, 8 C, D/2, H/2, W/2)."""
    return _last(pixelunshuffle(maps, 3, 2))


def _last(maps: Tensor) -> Tensor:
    return maps.contiguous(memory_format=torch.channels_last_3d)
