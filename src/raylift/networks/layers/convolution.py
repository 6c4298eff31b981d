"""A convolution that is as fast for a single float32 volume as for a batch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Channels × depth × height up to which PyTorch convolves a single volume by unfolding, much slower than with oneDNN.
SMALL = 20480


class Conv3d(nn.Conv3d):
    """PyTorch's convolution of stride 1, without bias, with a kernel of 1³ or 3³ padded to keep the size.

    A single small float32 volume on a CPU is split along z into a batch of two.
    """

    def forward(self, maps: Tensor) -> Tensor:
        """Return maps (B, out, D, H, W) for maps (B, in, D, H, W)."""
        batch, channels, depth, height, _ = maps.shape
        unfolded = batch == 1 and channels * depth * height <= SMALL and maps.dtype == torch.float32
        elsewhere = maps.device.type != "cpu" or torch.is_autocast_enabled("cpu") or torch.compiler.is_exporting()
        if not unfolded or elsewhere or depth % 2 or depth < 4:
            return super().forward(maps)
        edge, half = self.kernel_size[0] // 2, depth // 2
        padded = F.pad(maps, (0, 0, 0, 0, edge, edge))
        parts = torch.cat([padded[:, :, : half + 2 * edge], padded[:, :, half:]])
        out = F.conv3d(parts, self.weight, padding=(0, edge, edge))
        return out.permute(0, 2, 3, 4, 1).reshape(1, depth, *out.shape[3:], -1).permute(0, 4, 1, 2, 3)
