"""The 2D-3D autoencoder, a baseline of the paper: the views are combined in a single latent."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from raylift.networks.layers.dense import LEAST_EDGE, convolution
from raylift.networks.layers.expansion import expand

WIDEST = 16  # greatest width, as a multiple of feature_size


class Autoencoder(nn.Module):
    """X-rays (B, N, S, S) → volume (B, 1, z, y, x), with S voxels along each edge.

    Each view has a 2D encoder of strided convolutions down to 4 × 4 pixels. The views' latents are expanded along the
    depth and added, and a 3D decoder turns the sum into the volume. There are no skip connections.

    Args:
        axes: for each view the axis of the volume (z, y, x) along which it looks: 1 frontal, 2 lateral.
        voxels: S, a power of 2, at least 8; 64 in the paper.
        feature_size: width of the first stage; it doubles with each stage, up to 16 times. The paper gives no widths.
        normalised: scale each voxel's latent to length 1 over the channels ("+ L2" in the paper).

    Raises:
        ValueError: `voxels` is not a power of 2, or less than 8.
    """

    def __init__(self, axes: Sequence[int], voxels: int, feature_size: int, normalised: bool = False) -> None:
        super().__init__()
        if voxels < 2 * LEAST_EDGE or voxels & (voxels - 1):
            raise ValueError(f"the edge must be a power of 2 from {2 * LEAST_EDGE} on, not {voxels}")
        self.axes, self.normalised = tuple(axes), normalised
        halvings = (voxels // LEAST_EDGE).bit_length() - 1
        widths = [feature_size * min(2**level, WIDEST) for level in range(halvings + 1)]
        self.encoders = nn.ModuleList(self._encoder(widths) for _ in self.axes)
        self.decoder = nn.Sequential(
            *(
                nn.Sequential(nn.ConvTranspose3d(a, b, 2, 2), convolution(3, b, b))
                for a, b in itertools.pairwise(reversed(widths))
            ),
            nn.Conv3d(feature_size, 1, 3, padding=1),
        )

    @staticmethod
    def _encoder(widths: Sequence[int]) -> nn.Module:
        return nn.Sequential(
            convolution(2, 1, widths[0]),
            *(
                nn.Sequential(convolution(2, a, b, stride=2), convolution(2, b, b))
                for a, b in itertools.pairwise(widths[:-1])
            ),
            # The latent itself is neither normalised over the image nor passed through a ReLU.
            nn.Conv2d(widths[-2], widths[-1], 3, 2, 1),
        )

    def latent(self, images: Tensor) -> Tensor:
        """Return the latent (B, C, 4, 4, 4) = (B, C, z, y, x) of X-rays (B, N, S, S)."""
        latents = [
            expand(encoder(image), axis, LEAST_EDGE)
            for encoder, axis, image in zip(self.encoders, self.axes, images.split(1, 1), strict=True)
        ]
        total = sum(latents[1:], latents[0])
        return F.normalize(total, dim=1) if self.normalised else total

    def forward(self, images: Tensor) -> Tensor:
        """Return volumes (B, 1, z, y, x), any real value, for X-rays (B, N, S, S): frontal (z, x), lateral (z, y)."""
        out: Tensor = self.decoder(self.latent(images))
        return out


NormalisedAutoencoder = partial(Autoencoder, normalised=True)  # "+ L2"
