"""The parts shared by the generators of X2CT-GAN and CCX-rayNet: a dense 2D encoder, a 3D decoder, their connections.

Within a branch, 3D features are (B, C, z, depth, column) in the frame of its view; its output is in the volume's frame.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import torch
from monai.networks.blocks.convolutions import Convolution
from torch import Tensor, nn

from raylift.networks.layers.expansion import FRONTAL, expand, turn

STAGES = 5  # dense blocks of the encoder
LAYERS = 6  # convolutions of a dense block
# Edge of the deepest maps. The published input of 128 reaches it by five halvings. A smaller input is halved fewer
# times, since instance normalisation needs more than one pixel and oneDNN's bfloat16 gradients more than 2³ voxels.
LEAST_EDGE = 4

Modulation = Callable[[Tensor], Tensor]


class Plan:
    """Sizes and widths of the six levels, from the X-ray's (0) to the bottleneck (5).

    Args:
        voxels: edge of the volume and of the X-rays; 4 times a power of 2.
        feature_size: width of level 0, even.

    Raises:
        ValueError: `voxels` is not 4 times a power of 2, or `feature_size` is odd.
    """

    def __init__(self, voxels: int, feature_size: int) -> None:
        if voxels < LEAST_EDGE or voxels & (voxels - 1):
            raise ValueError(f"the edge must be a power of 2 from {LEAST_EDGE} on, not {voxels}")
        if feature_size < 2 or feature_size % 2:
            raise ValueError(f"feature_size must be even, not {feature_size}")
        self.sizes = [max(voxels >> level, LEAST_EDGE) for level in range(STAGES + 1)]
        self.strides = [a // b for a, b in itertools.pairwise(self.sizes)]
        self.flat = [feature_size * times for times in (1, 2, 4, 8, 16, 8)]
        self.solid = [feature_size * times for times in (1, 2, 4, 8, 8, 8)]


def convolution(dims: int, before: int, after: int, kernel: int = 3, stride: int = 1) -> nn.Module:
    """Return a module of convolution, instance normalisation and ReLU, from `before` to `after` channels."""
    norm = ("instance", {"affine": True})
    return Convolution(dims, before, after, stride, kernel, norm=norm, act="relu", bias=False)


class DenseBlock(nn.Module):
    """Convolutions whose inputs are the outputs of all previous ones (Huang et al. 2017).

    Args:
        width: channels of the input.
        growth: channels that each convolution adds.
        layers: number of convolutions; the output has width + layers · growth channels.
    """

    def __init__(self, width: int, growth: int, layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(convolution(2, width + k * growth, growth) for k in range(layers))

    def forward(self, maps: Tensor) -> Tensor:
        """Return maps (B, width + layers · growth, D, W) for maps (B, width, D, W)."""
        for layer in self.layers:
            maps = torch.cat([maps, layer(maps)], 1)
        return maps


class Encoder(nn.Module):
    """A view's 2D encoder: a convolution, then five stages of strided convolution, dense block and 1² convolution.

    Args:
        plan: sizes and widths.
    """

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self.stages = nn.ModuleList([convolution(2, 1, plan.flat[0])])
        for (width, after), stride in zip(itertools.pairwise(plan.flat), plan.strides, strict=True):
            self.stages.append(
                nn.Sequential(
                    convolution(2, width, width, stride=stride),
                    DenseBlock(width, width // 2, LAYERS),
                    convolution(2, width + LAYERS * (width // 2), after, kernel=1),
                )
            )

    def forward(self, image: Tensor, modulations: Sequence[Modulation]) -> list[Tensor]:
        """Return the maps (B, C, D, W) of each level, from fine to deep, of X-rays (B, 1, S, S).

        Args:
            image: X-rays (B, 1, S, S).
            modulations: one per level, applied to its maps before the next stage.
        """
        levels, maps = [], image
        for stage, modulate in zip(self.stages, modulations, strict=True):
            maps = modulate(stage(maps))
            levels.append(maps)
        return levels


class ConnectionA(nn.Module):
    """The fully connected layer from the encoder's deepest maps to the decoder's first voxels.

    Args:
        plan: sizes and widths.
    """

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self.shape = (plan.solid[-1], *(plan.sizes[-1],) * 3)
        self.layer = nn.Linear(plan.flat[-1] * plan.sizes[-1] ** 2, plan.solid[-1] * plan.sizes[-1] ** 3)

    def forward(self, maps: Tensor) -> Tensor:
        """Return voxels (B, C', 4, 4, 4) for maps (B, C, 4, 4)."""
        voxels: Tensor = self.layer(maps.flatten(1)).relu().unflatten(1, self.shape)
        return voxels


class ConnectionB(nn.Module):
    """The skip connection from encoder to decoder: a 2D convolution, repetition along the depth, a 3D convolution.

    Args:
        flat: channels of the maps.
        solid: channels of the decoder.
        depth: voxels along the depth.
    """

    def __init__(self, flat: int, solid: int, depth: int) -> None:
        super().__init__()
        self.depth = depth
        self.narrow = convolution(2, flat, solid)
        self.solid = convolution(3, solid, solid)

    def forward(self, maps: Tensor) -> Tensor:
        """Return 3D features (B, solid, z, depth, column) for 2D features (B, flat, D, W)."""
        out: Tensor = self.solid(expand(self.narrow(maps), FRONTAL, self.depth))
        return out


class Average(nn.Module):
    """Connection-C: the mean of the views' features in the volume's frame."""

    def forward(self, views: Sequence[Tensor]) -> Tensor:
        """Return the mean (B, C, D, H, W) of N views' features of the same shape."""
        return torch.stack(tuple(views)).mean(0)


class Decoder(nn.Module):
    """A 3D decoder: at each level it enlarges, concatenates the skip connection, and convolves twice.

    Args:
        plan: sizes and widths.
    """

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self.enlarge, self.merge = nn.ModuleList(), nn.ModuleList()
        for (width, before), stride in zip(itertools.pairwise(plan.solid), plan.strides, strict=True):
            self.enlarge.append(nn.ConvTranspose3d(before, width, stride, stride))
            self.merge.append(nn.Sequential(convolution(3, 2 * width, width), convolution(3, width, width)))

    def forward(self, deepest: Tensor, skips: Sequence[Tensor]) -> list[Tensor]:
        """Return six levels of 3D features, from fine to deep.

        Args:
            deepest: the deepest voxels.
            skips: five levels of skip connections, from fine to deep.
        """
        levels = [deepest]
        for enlarge, merge, skip in reversed(list(zip(self.enlarge, self.merge, skips, strict=True))):
            levels.append(merge(torch.cat([enlarge(levels[-1]), skip], 1)))
        return levels[::-1]


class Branch(nn.Module):
    """The network of one view: encoder, Connection-A and Connection-B, decoder.

    Args:
        axis: axis of the volume (z, y, x) along which the view looks, 1 or 2.
        plan: sizes and widths.
        connection: makes a level's Connection-B from the encoder's channels, the decoder's channels and the number of
            voxels along the depth.
    """

    def __init__(self, axis: int, plan: Plan, connection: Callable[[int, int, int], nn.Module] = ConnectionB) -> None:
        super().__init__()
        self.axis = axis
        self.encoder = Encoder(plan)
        self.deepest = ConnectionA(plan)
        self.connections = nn.ModuleList(
            connection(*shape) for shape in zip(plan.flat[:-1], plan.solid[:-1], plan.sizes[:-1], strict=True)
        )
        self.decoder = Decoder(plan)

    def forward(self, image: Tensor, modulations: Sequence[Modulation] | None = None) -> list[Tensor]:
        """Return six levels (B, C, z, y, x), from fine to deep, in the volume's frame.

        Args:
            image: X-rays (B, 1, S, S).
            modulations: one per level of the encoder; None for none.
        """
        maps = self.encoder(image, modulations or [nn.Identity()] * (STAGES + 1))
        skips = [connection(level) for connection, level in zip(self.connections, maps[:-1], strict=True)]
        return [turn(level, self.axis) for level in self.decoder(self.deepest(maps[-1]), skips)]


class Fusion(nn.Module):
    """The decoder of all views: its skip connections are the views' features, joined at each level (Connection-C).

    Args:
        plan: sizes and widths.
        joins: six modules, from fine to deep, each of which joins N tensors (B, C, D, H, W) to one.
    """

    def __init__(self, plan: Plan, joins: Sequence[nn.Module]) -> None:
        super().__init__()
        self.joins = nn.ModuleList(joins)
        self.decoder = Decoder(plan)
        self.head = nn.Conv3d(plan.solid[0], 1, 3, padding=1)

    def forward(self, views: Sequence[list[Tensor]]) -> Tensor:
        """Return volumes (B, 1, z, y, x) for N views of six levels each."""
        levels = [join(level) for join, level in zip(self.joins, zip(*views, strict=True), strict=True)]
        out: Tensor = self.head(self.decoder(levels[-1], levels[:-1])[0])
        return out
