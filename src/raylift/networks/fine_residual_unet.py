"""A residual U-Net at half the resolution, followed by a stage that adds the fine detail."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import convert_conv3d_weight_memory_format

from raylift.networks.layers.normalisation import SLOPE
from raylift.networks.residual_unet import FINE, ResidualUNet
from raylift.networks.swin_unetr import ResidualBlock


class FineResidualUNet(ResidualUNet):
    """(B, in, D, H, W) → (B, out, D, H, W), any real value.

    The coarse network is a `ResidualUNet` for `voxels` / 2, with the same parameter names, so that it can be
    initialised with the weights of a trained one; its input is averaged over 2³ voxels. Its output is interpolated.
    Two blocks at half resolution and a convolution at full resolution, whose input is the lifted views and this
    output, add a correction, which is 0 at the start of training.

    Args:
        in_channels: channels of the lifted views.
        out_channels: channels of the volume.
        feature_size: of the coarse network, and width of the blocks; even.
        voxels: edge of the volume, twice an edge that `ResidualUNet` accepts.

    Raises:
        ValueError: the edge is another.
    """

    def __init__(self, in_channels: int, out_channels: int, feature_size: int, voxels: int) -> None:
        if voxels % 2:
            raise ValueError(f"the edge must be an even number of voxels, not {voxels}")
        super().__init__(in_channels, out_channels, feature_size, voxels // 2)
        self.fine_down = nn.Conv3d(in_channels + out_channels, feature_size, 2, 2, bias=False)
        self.fine_blocks = nn.Sequential(*(ResidualBlock(feature_size, feature_size) for _ in range(2)))
        self.fine_up = nn.ConvTranspose3d(feature_size, FINE, 2, 2)
        self.fine_out = nn.Conv3d(FINE, out_channels, 3, padding=1)
        for parameter in self.fine_out.parameters():
            nn.init.zeros_(parameter)
        convert_conv3d_weight_memory_format(self, torch.channels_last_3d)

    def forward(self, volume: Tensor) -> Tensor:
        """Return volumes (B, out_channels, D, H, W) for lifted views (B, in_channels, D, H, W)."""
        coarse = super().forward(F.avg_pool3d(volume, 2))
        smooth = F.interpolate(coarse.float(), scale_factor=2, mode="trilinear", align_corners=False).to(coarse.dtype)
        both = torch.cat([volume.to(coarse.dtype), smooth], 1).contiguous(memory_format=torch.channels_last_3d)
        maps = self.fine_blocks(self.fine_down(both))
        out: Tensor = smooth + self.fine_out(F.leaky_relu(self.fine_up(maps), SLOPE))
        return out
