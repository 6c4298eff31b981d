"""CCX-rayNet (Ratul, Yuan, Lee, ISBI 2021), written from descriptions of it; widths and details are Raylift's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import torch
import torch.nn.functional as F
from monai.networks.nets.unet import UNet
from torch import Tensor, nn
from torch.nn.utils import convert_conv3d_weight_memory_format

from raylift.networks.layers.dense import Average, Branch, ConnectionB, Fusion, Plan
from raylift.networks.layers.expansion import FRONTAL, expand

# Range of each class in Hounsfield units.
CLASSES = {"lung": (-950.0, -500.0), "soft tissue": (-200.0, 150.0), "bone": (150.0, float("inf"))}
# Greatest edge of the maps that are fused by a similarity matrix: 512 × 512 entries. With 16 it would be 64 times as
# large.
COMPARED = 8


class DeepFeatureTransform(nn.Module):
    """Scale and shift each pixel of 2D features by factors computed from the class maps.

    Args:
        width: channels of the features.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.condition = nn.Sequential(nn.Conv2d(len(CLASSES), width, 3, padding=1), nn.LeakyReLU(0.1))
        self.affine = nn.Conv2d(width, 2 * width, 1)

    def forward(self, classes: Tensor, maps: Tensor) -> Tensor:
        """Return transformed features (B, C, D, W).

        Args:
            classes: class maps (B, 3, S, S); they are averaged to the features' size.
            maps: features (B, C, D, W).
        """
        resized = F.adaptive_avg_pool2d(classes, (maps.shape[2], maps.shape[3]))
        scale, shift = self.affine(self.condition(resized)).chunk(2, 1)
        out: Tensor = maps * (1 + scale) + shift
        return out


class DepthAwareConnection(ConnectionB):
    """Connection-B whose repeated features are multiplied by a 3D attention mask.

    For each pixel a convolution predicts one weight in [0, 1] per voxel along its ray, so that the network can choose
    the depth to which a feature belongs.
    """

    def __init__(self, flat: int, solid: int, depth: int) -> None:
        super().__init__(flat, solid, depth)
        self.attention = nn.Conv2d(flat, depth, 3, padding=1)

    def mask(self, maps: Tensor) -> Tensor:
        """Return the mask (B, 1, z, depth, column) in [0, 1] for features (B, flat, D, W)."""
        weights: Tensor = self.attention(maps).sigmoid()
        return weights.transpose(1, 2).unsqueeze(1)

    def forward(self, maps: Tensor) -> Tensor:
        """Return 3D features (B, solid, z, depth, column) for 2D features (B, flat, D, W)."""
        out: Tensor = self.solid(expand(self.narrow(maps), FRONTAL, self.depth) * self.mask(maps))
        return out


class AdaptiveFeatureFusion(nn.Module):
    """Align the views with the first one by a similarity matrix, then average them.

    Row i of the matrix holds the softmax over j of s · cos(e(a_i), e(b_j)), with a the first view, b another one, e an
    embedding and s a scale, both learned; voxel i of the aligned view is the mean of the b_j with these weights.

    Args:
        width: channels of the features.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.embed = nn.Linear(width, width, bias=False)
        self.log_scale = nn.Parameter(torch.tensor(math.log(10.0)))

    def similarity(self, first: Tensor, other: Tensor) -> Tensor:
        """Return the similarity matrix (B, V, V), whose rows sum to 1, of the voxels (B, V, C) of two views."""
        a, b = (F.normalize(self.embed(voxels).float(), dim=-1) for voxels in (first, other))
        return (self.log_scale.exp() * a @ b.mT).softmax(-1)

    def forward(self, views: Sequence[Tensor]) -> Tensor:
        """Return the fused features (B, C, D, H, W) of N views of the same shape."""
        first, *others = (view.flatten(2).mT for view in views)
        aligned = [self.similarity(first, other).to(other.dtype) @ other for other in others]
        fused: Tensor = torch.stack([first, *aligned]).mean(0).mT.unflatten(2, views[0].shape[2:])
        return fused


class ConditionedBranch(nn.Module):
    """The encoder and decoder of one view, whose 2D features are transformed by the class maps at every level.

    Args:
        axis: axis of the volume (z, y, x) along which the view looks, 1 or 2.
        plan: sizes and widths.
    """

    def __init__(self, axis: int, plan: Plan) -> None:
        super().__init__()
        self.branch = Branch(axis, plan, DepthAwareConnection)
        self.transforms = nn.ModuleList(DeepFeatureTransform(width) for width in plan.flat)

    def forward(self, image: Tensor, classes: Tensor) -> list[Tensor]:
        """Return six levels (B, C, z, y, x), from fine to deep, of X-rays (B, 1, S, S) and class maps (B, 3, S, S)."""
        levels: list[Tensor] = self.branch(image, [partial(transform, classes) for transform in self.transforms])
        return levels


class CCXRayNet(nn.Module):
    """X-rays (B, N, S, S) → volume (B, 1, z, y, x), with S voxels along each edge.

    This is X2CT-GAN's generator with the Deep Feature Transform on every level of its encoders, the Depth-Aware
    Connection in place of Connection-B, and Adaptive Feature Fusion in place of the average where maps are small.

    The class maps for the transform are predicted from the X-ray by a U-Net, `segment`. Only the objective's term on
    the class maps trains it, since the transform receives them detached from the gradient.

    Args:
        axes: for each view the axis of the volume (z, y, x) along which it looks: 1 frontal, 2 lateral.
        voxels: S, a power of 2, at least 16; 128 in the paper.
        feature_size: width of the first stage, even. The paper's number of parameters is not known. 16 is X2CT-GAN's
            size and gives 60.6 million with two views of 128²; 8 suits a CPU.
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
        # Saves a sixth of a training step's time on a CPU.
        convert_conv3d_weight_memory_format(self, torch.channels_last_3d)

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Reconstruct volumes from X-rays.

        Args:
            images: (B, N, S, S), frontal (z, x) and lateral (z, y).

        Returns:
            Volumes (B, 1, z, y, x), any real value; in training also the class maps (B, N, 3, S, S), in [0, 1]: the
            fraction of each ray's path that lies in lung, soft tissue and bone.
        """
        classes = self.segment(images.flatten(0, 1).unsqueeze(1)).unflatten(0, images.shape[:2])
        per_view = zip(self.branches, images.split(1, 1), classes.detach().unbind(1), strict=True)
        views = [branch(image, view_classes) for branch, image, view_classes in per_view]
        volume: Tensor = self.fusion(views)
        return (volume, classes) if self.training else volume
