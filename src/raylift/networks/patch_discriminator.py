"""The 3D PatchGAN discriminator of X2CT-GAN (Isola et al. 2017), which scores how real each patch of a volume looks."""

from __future__ import annotations

import itertools

import torch
from monai.networks.blocks.convolutions import Convolution
from torch import Tensor, nn


class PatchDiscriminator(nn.Module):
    """Volume (B, in_channels, D, H, W) → a score for each patch (B, 1, D', H', W'), any real value.

    There are three strided and one unstrided 4³ convolutions with LeakyReLU, instance normalisation on all but the
    first, and one more convolution for the scores. The receptive field of a score is 70³ voxels; a volume of 64³ has
    6³ scores. To condition on the X-rays, concatenate them, repeated along the depth, as channels.

    Edges must be multiples of 8, at least 32.

    Args:
        in_channels: channels of the volume and of the images it is conditioned on.
        features: channels of the first layer; they double with each layer.
    """

    def __init__(self, in_channels: int, features: int = 64) -> None:
        super().__init__()
        act = ("leakyrelu", {"negative_slope": 0.2})
        widths = [in_channels, features, features * 2, features * 4, features * 8]
        self.layers = nn.Sequential(
            *(
                Convolution(3, a, b, stride, 4, act=act, norm="instance" if k else None, padding=1, bias=not k)
                for k, ((a, b), stride) in enumerate(zip(itertools.pairwise(widths), (2, 2, 2, 1), strict=True))
            )
        )
        self.head = nn.Conv3d(widths[-1], 1, 4, padding=1)

    def forward(self, volume: Tensor) -> Tensor:
        """Return scores (B, 1, D/8 - 2, H/8 - 2, W/8 - 2) of volumes (B, in_channels, D, H, W)."""
        patches = self.layers(volume)
        # In float32: oneDNN's bfloat16 gradient of a convolution to 2³ voxels is wrong.
        with torch.autocast(volume.device.type, enabled=False):
            out: Tensor = self.head(patches.float())
        return out
