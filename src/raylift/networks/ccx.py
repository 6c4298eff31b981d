"""CCX-rayNet (Ratul, Yuan, Lee, ISBI 2021), written from descriptions of it; widths and the like are Raylift's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import torch
import torch.nn.functional as F
from monai.networks.nets import UNet
from torch import Tensor, nn
from torch.nn.utils import convert_conv3d_weight_memory_format

from raylift.networks.layers.dense import Average, Branch, ConnectionB, Fusion, Plan
from raylift.networks.layers.expansion import FRONTAL, expand

# Class → Hounsfield units, from and to.
CLASSES = {"lung": (-950.0, -500.0), "soft tissue": (-200.0, 150.0), "bone": (150.0, float("inf"))}
# Largest edge of maps whose voxels are all compared: 512 × 512 similarities. At 16 it would be 64 times as many.
COMPARED = 8


class DeepFeatureTransform(nn.Module):
    """Scale and shift for each pixel of 2D features, from the classes seen there.

    Args:
        width: channels of the features.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.condition = nn.Sequential(nn.Conv2d(len(CLASSES), width, 3, padding=1), nn.LeakyReLU(0.1))
        self.affine = nn.Conv2d(width, 2 * width, 1)

    def forward(self, classes: Tensor, maps: Tensor) -> Tensor:
        """Class maps (B, 3, S, S), averaged to the features' size, and features (B, C, D, W) → (B, C, D, W)."""
        seen = F.adaptive_avg_pool2d(classes, (maps.shape[2], maps.shape[3]))
        scale, shift = self.affine(self.condition(seen)).chunk(2, 1)
        return maps * (1 + scale) + shift


class DepthAwareConnection(ConnectionB):
    """Connection-B whose repeated features are multiplied by a 3D attention mask.

    A convolution gives each pixel one weight in [0, 1] for each voxel on its ray: where along the depth it belongs.
    """

    def __init__(self, flat: int, solid: int, depth: int) -> None:
        super().__init__(flat, solid, depth)
        self.attention = nn.Conv2d(flat, depth, 3, padding=1)

    def mask(self, maps: Tensor) -> Tensor:
        """(B, flat, D, W) → (B, 1, z, depth, column) in [0, 1]."""
        return self.attention(maps).sigmoid().transpose(1, 2).unsqueeze(1)

    def forward(self, maps: Tensor) -> Tensor:
        """(B, flat, D, W) → (B, solid, z, depth, column)."""
        out: Tensor = self.solid(expand(self.narrow(maps), FRONTAL, self.depth) * self.mask(maps))
        return out


class AdaptiveFeatureFusion(nn.Module):
    """The views are aligned with the first by a similarity matrix, then averaged.

    Row i of the matrix holds the softmax over j of s · cos(e(a_i), e(b_j)), with a the first view, b another one, e an
    embedding and s a scale, both learned; voxel i of the aligned view is that mean of the b_j.

    Args:
        width: channels of the features.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.embed = nn.Linear(width, width, bias=False)
        self.log_scale = nn.Parameter(torch.tensor(math.log(10.0)))

    def similarity(self, first: Tensor, other: Tensor) -> Tensor:
        """Voxels (B, V, C) of two views → (B, V, V), rows of sum 1."""
        a, b = (F.normalize(self.embed(voxels).float(), dim=-1) for voxels in (first, other))
        return (self.log_scale.exp() * a @ b.mT).softmax(-1)

    def forward(self, views: Sequence[Tensor]) -> Tensor:
        """N times (B, C, D, H, W) → (B, C, D, H, W)."""
        first, *others = (view.flatten(2).mT for view in views)
        aligned = [self.similarity(first, other).to(other.dtype) @ other for other in others]
        return torch.stack([first, *aligned]).mean(0).mT.unflatten(2, views[0].shape[2:])


class ConditionedBranch(nn.Module):
    """One view on its way to three dimensions, its maps transformed by the classes seen at every level.

    Args:
        axis: of the volume (z, y, x) along which the view looks, 1 or 2.
        plan: sizes and widths.
    """

    def __init__(self, axis: int, plan: Plan) -> None:
        super().__init__()
        self.branch = Branch(axis, plan, DepthAwareConnection)
        self.transforms = nn.ModuleList(DeepFeatureTransform(width) for width in plan.flat)

    def forward(self, image: Tensor, classes: Tensor) -> list[Tensor]:
        """(B, 1, S, S) and its class maps (B, 3, S, S) → six levels (B, C, z, y, x), from fine to deep."""
        levels: list[Tensor] = self.branch(image, [partial(transform, classes) for transform in self.transforms])
        return levels


class CCXRayNet(nn.Module):
    """X-rays (B, N, S, S) → volume (B, 1, z, y, x), with S voxels along each edge.

    X2CT-GAN's generator with the Deep Feature Transform on every level of its encoders, the Depth-Aware Connection in
    place of Connection-B, and Adaptive Feature Fusion in place of the average where the maps are small enough.

    The classes that the transform needs come from a U-Net of its own, `segment`, since there is only the X-ray when a
    volume is wanted. It is trained by what the objective says about the class maps and by nothing else: the transform
    takes them detached.

    Args:
        axes: for each view the axis of the volume (z, y, x) along which it looks: 1 frontal, 2 lateral.
        voxels: S, a power of 2, at least 16; 128 in the paper.
        feature_size: width of the first stage, even. No parameter count of the paper is known; 16 is X2CT-GAN's size,
            60.6 million with two views of 128², and 8 suits a CPU.
    """

    def __init__(self, axes: Sequence[int], voxels: int, feature_size: int) -> None:
        super().__init__()
        plan = Plan(voxels, feature_size)
        widths = [feature_size * times for times in (1, 2, 4, 8)]
        self.segment = nn.Sequential(UNet(2, 1, len(CLASSES), widths, (2, 2, 2), num_res_units=1), nn.Sigmoid())
        self.branches = nn.ModuleList(ConditionedBranch(axis, plan) for axis in axes)
        self.fusion = Fusion(
            plan,
            [
                AdaptiveFeatureFusion(width) if len(axes) > 1 and size <= COMPARED else Average()
                for width, size in zip(plan.solid, plan.sizes, strict=True)
            ],
        )
        # A sixth less time for a training step on a CPU.
        convert_conv3d_weight_memory_format(self, torch.channels_last_3d)

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Reconstruct.

        Args:
            images: (B, N, S, S), frontal (z, x) and lateral (z, y).

        Returns:
            (B, 1, z, y, x), any real value; in training also the class maps (B, N, 3, S, S), in [0, 1]: the fraction
            of each ray's path that lies in lung, soft tissue and bone.
        """
        classes = self.segment(images.flatten(0, 1).unsqueeze(1)).unflatten(0, images.shape[:2])
        seen = classes.detach().unbind(1)
        views = [branch(image, own) for branch, image, own in zip(self.branches, images.split(1, 1), seen, strict=True)]
        volume: Tensor = self.fusion(views)
        return (volume, classes) if self.training else volume
