"""The feature extractor f: a small strided 3D CNN with random, untrained weights."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn


class FeatureExtractor(nn.Module):
    """Volume (B, 1, D, H, W) → the activations after each of four LeakyReLUs.

    There are three strided and one unstrided 4×4×4 convolutions with Kaiming initialisation. The weights are not
    trained, but belong in every checkpoint, since another f is another loss.

    The first convolution has a bias, drawn from the seed as PyTorch draws it. Without one, f(k V) = k f(V) for every
    k > 0, and features of unit length could not tell a volume from one of half its density. f has no batch
    normalisation, which would make a volume's features depend on the other volumes of the batch.

    Args:
        features: channels of the first layer; they double with each strided layer.
        seed: of the random weights.
        bias: whether the first convolution has a bias; False only to study its effect.
    """

    def __init__(self, features: int = 16, seed: int = 0, bias: bool = True) -> None:
        super().__init__()
        widths, strides = [1, features, features * 2, features * 4, features * 8], [2, 2, 2, 1]
        generator = torch.Generator().manual_seed(seed)
        self.layers = nn.ModuleList()
        for k, ((a, b), stride) in enumerate(zip(itertools.pairwise(widths), strides, strict=True)):
            convolution = nn.Conv3d(a, b, 4, stride, padding=1, bias=bias and k == 0)
            nn.init.kaiming_normal_(convolution.weight, a=0.2, generator=generator)
            if convolution.bias is not None:
                bound = convolution.weight[0].numel() ** -0.5
                nn.init.uniform_(convolution.bias, -bound, bound, generator=generator)
            self.layers.append(nn.Sequential(convolution, nn.LeakyReLU(0.2)))
        self.requires_grad_(False)

    def forward(self, volume: Tensor) -> list[Tensor]:
        """Return four maps (B, C, D', H', W') of volumes (B, 1, D, H, W); gradients reach the volumes only."""
        maps = []
        for layer in self.layers:
            volume = layer(volume)
            maps.append(volume)
        return maps


def unit_length(maps: Tensor) -> Tensor:
    """Return feature maps (B, C, D, H, W) with each voxel's vector of channels scaled to length 1."""
    scaled: Tensor = maps / maps.norm(dim=1, keepdim=True).clamp_min(1e-8)
    return scaled
