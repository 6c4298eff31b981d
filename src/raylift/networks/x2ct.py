"""The generator of X2CT-GAN (Ying et al., CVPR 2019, arXiv 1905.06902), written from descriptions of it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils import convert_conv3d_weight_memory_format

from raylift.networks.layers.dense import STAGES, Average, Branch, Fusion, Plan


class X2CT(nn.Module):
    """X-rays (B, N, S, S) → volume (B, 1, z, y, x), with S voxels along each edge.

    Each view has a dense 2D encoder and a 3D decoder, joined at the bottleneck by a fully connected layer
    (Connection-A) and at every level by repetition along the depth (Connection-B). One more decoder takes the average
    of the views' decoders at every level (Connection-C), in the volume's frame.

    Args:
        axes: for each view the axis of the volume (z, y, x) along which it looks: 1 frontal, 2 lateral.
        voxels: S, a power of 2; 128 in the paper.
        feature_size: width of the first stage, even. 16 gives 59.7 million parameters with two views of 128², close to
            the published size as far as it is known: a later paper (DP-GAN+B, Xing et al. 2024) reports that it saves
            31.924 million or 44.17 % of the generator's and discriminator's parameters, which makes 72.3 million in
            all, and 61.2 million without the 11.1 million of `PatchDiscriminator`. 8 suits a CPU: 14.9 million at 64.
    """

    def __init__(self, axes: Sequence[int], voxels: int, feature_size: int) -> None:
        super().__init__()
        plan = Plan(voxels, feature_size)
        self.branches = nn.ModuleList(Branch(axis, plan) for axis in axes)
        self.fusion = Fusion(plan, [Average() for _ in range(STAGES + 1)])
        # Saves a sixth of a training step's time on a CPU.
        convert_conv3d_weight_memory_format(self, torch.channels_last_3d)

    def forward(self, images: Tensor) -> Tensor:
        """Return volumes (B, 1, z, y, x), any real value, for X-rays (B, N, S, S): frontal (z, x), lateral (z, y)."""
        views = [branch(image) for branch, image in zip(self.branches, images.split(1, 1), strict=True)]
        out: Tensor = self.fusion(views)
        return out
