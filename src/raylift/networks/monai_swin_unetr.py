"""MONAI's own Swin UNETR, to compare with."""

from __future__ import annotations

import torch
from monai.networks.blocks import UnetrBasicBlock
from monai.networks.nets import SwinUNETR as MonaiSwinUNETR
from torch import Tensor
from torch.nn.utils import convert_conv3d_weight_memory_format


class _Float32Block(UnetrBasicBlock):
    """A block that leaves mixed precision: oneDNN's bfloat16 gradient of a 3³ convolution on 2³ voxels is garbage."""

    def forward(self, maps: Tensor) -> Tensor:
        with torch.autocast(maps.device.type, enabled=False):
            out: Tensor = super().forward(maps.float())
        return out


class SwinUNETR(MonaiSwinUNETR):
    """As `raylift.networks.swin_unetr.SwinUNETR`, which takes its weights."""

    def __init__(
        self, in_channels: int = 2, out_channels: int = 1, feature_size: int = 48, window_size: int = 7
    ) -> None:
        super().__init__(
            in_channels=in_channels, out_channels=out_channels, feature_size=feature_size, window_size=window_size
        )
        deepest = 16 * feature_size
        self.encoder10 = _Float32Block(3, deepest, deepest, 3, 1, "instance", res_block=True)
        # A quarter less time for a training step on a CPU.
        convert_conv3d_weight_memory_format(self, torch.channels_last_3d)

    def forward(self, volume: Tensor) -> Tensor:
        """(B, in_channels, D, H, W) → (B, out_channels, D, H, W), any real value."""
        out: Tensor = super().forward(volume.contiguous(memory_format=torch.channels_last_3d))
        return out
