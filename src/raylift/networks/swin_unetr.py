"""Swin UNETR (Hatamizadeh et al. 2022), the paper's mapping network, from MONAI."""

from __future__ import annotations

import torch
from monai.networks.blocks import UnetrBasicBlock
from monai.networks.nets import SwinUNETR as MonaiSwinUNETR
from torch import Tensor, nn
from torch.nn.utils import convert_conv3d_weight_memory_format


class _Float32Block(UnetrBasicBlock):
    """A block that leaves mixed precision: oneDNN's bfloat16 gradient of a 3³ convolution on 2³ voxels is garbage."""

    def forward(self, maps: Tensor) -> Tensor:
        with torch.autocast(maps.device.type, enabled=False):
            out: Tensor = super().forward(maps.float())
        return out


class SwinUNETR(nn.Module):
    """A U-shaped network of windowed self-attention: (B, in, D, H, W) → (B, out, D, H, W).

    Args:
        in_channels: channels of the lifted views.
        out_channels: channels of the volume.
        feature_size: width of the first stage, a multiple of 12; the paper's is 48.
        window_size: edge of the attention windows in tokens. An input of 64 has token grids of 32, 16, 8 and 4: a
            window of 4 divides them all, the paper's 7 pads each.

    Spatial sizes must be multiples of 32, and more than 32 along one axis at least (instance normalisation).
    """

    def __init__(
        self, in_channels: int = 2, out_channels: int = 1, feature_size: int = 48, window_size: int = 7
    ) -> None:
        super().__init__()
        self.net = MonaiSwinUNETR(
            in_channels=in_channels,
            out_channels=out_channels,
            feature_size=feature_size,
            window_size=window_size,
        )
        deepest = 16 * feature_size
        self.net.encoder10 = _Float32Block(3, deepest, deepest, 3, 1, "instance", res_block=True)
        # A quarter less time for a training step on a CPU.
        convert_conv3d_weight_memory_format(self.net, torch.channels_last_3d)

    def forward(self, volume: Tensor) -> Tensor:
        """(B, in_channels, D, H, W) → (B, out_channels, D, H, W), any real value."""
        out: Tensor = self.net(volume.contiguous(memory_format=torch.channels_last_3d))
        return out
