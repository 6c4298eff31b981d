"""Swin UNETR (Hatamizadeh et al. 2022), the paper's mapping network, equivalent to MONAI's but faster."""

from __future__ import annotations

from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import convert_conv3d_weight_memory_format

from raylift.networks.layers.convolution import Conv3d
from raylift.networks.layers.normalisation import normalised
from raylift.networks.layers.swin import SwinTransformer

# Edge of maps below which oneDNN's bfloat16 gradient of a 3³ convolution is wrong (PyTorch 2.13).
SMALLEST = 4


class SwinUNETR(nn.Module):
    """A U-shaped network of windowed self-attention: (B, in, D, H, W) → (B, out, D, H, W).

    Its state dictionary has the names and shapes of `monai.networks.nets.SwinUNETR` without the blocks of version 2.
    Spatial sizes must be multiples of 32, and at least one of them more than 32, for the instance normalisation.

    Args:
        in_channels: channels of the lifted views.
        out_channels: channels of the volume.
        feature_size: width of the first stage, a multiple of 12; the paper's is 48.
        window_size: edge of the attention windows in tokens. An input of 64 has token grids of 32, 16, 8 and 4: a
            window of 4 divides them all, while the paper's 7 needs padding in each.
        checkpointing: the transformer recomputes its activations for the gradient instead of storing them.

    Raises:
        ValueError: `feature_size` is not a multiple of 12.
    """

    def __init__(
        self,
        in_channels: int = 2,
        out_channels: int = 1,
        feature_size: int = 48,
        window_size: int = 7,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        if feature_size % 12:
            raise ValueError(f"feature_size {feature_size} is not a multiple of 12")
        c = feature_size
        self.swinViT = SwinTransformer(in_channels, c, window_size, checkpointing)
        self.encoder1 = _within(layer=ResidualBlock(in_channels, c))
        self.encoder2 = _within(layer=ResidualBlock(c, c))
        self.encoder3 = _within(layer=ResidualBlock(2 * c, 2 * c))
        self.encoder4 = _within(layer=ResidualBlock(4 * c, 4 * c))
        self.encoder10 = _within(layer=ResidualBlock(16 * c, 16 * c))
        self.decoder5 = DecoderBlock(16 * c, 8 * c)
        self.decoder4 = DecoderBlock(8 * c, 4 * c)
        self.decoder3 = DecoderBlock(4 * c, 2 * c)
        self.decoder2 = DecoderBlock(2 * c, c)
        self.decoder1 = LastDecoderBlock(c, c)
        self.out = _within(conv=_within(conv=nn.Conv3d(c, out_channels, 1)))
        convert_conv3d_weight_memory_format(self, torch.channels_last_3d)
        # This block has tiny maps and large kernels, and PyTorch would copy the kernels at every step.
        convert_conv3d_weight_memory_format(self.encoder10, torch.contiguous_format)

    def forward(self, volume: Tensor) -> Tensor:
        """Return volumes (B, out_channels, D, H, W), any real value, for lifted views (B, in_channels, D, H, W)."""
        volume = volume.contiguous(memory_format=torch.channels_last_3d)
        maps = self.swinViT(volume)
        out = self.decoder5(self.encoder10(maps[4]), maps[3])
        out = self.decoder4(out, self.encoder4(maps[2]))
        out = self.decoder3(out, self.encoder3(maps[1]))
        out = self.decoder2(out, self.encoder2(maps[0]))
        out = self.decoder1(out, self.encoder1(volume))
        result: Tensor = self.out(out)
        return result


class ResidualBlock(nn.Module):
    """Two 3³ convolutions with a shortcut, which is a 1³ convolution if the number of channels changes.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv1 = _within(conv=Conv3d(in_channels, out_channels, 3, padding=1, bias=False))
        self.conv2 = _within(conv=Conv3d(out_channels, out_channels, 3, padding=1, bias=False))
        if in_channels != out_channels:
            self.conv3 = _within(conv=Conv3d(in_channels, out_channels, 1, bias=False))
        self.same = in_channels == out_channels

    def forward(self, maps: Tensor) -> Tensor:
        """Return maps (B, out, D, H, W) for maps (B, in, D, H, W)."""
        if min(maps.shape[2:]) < SMALLEST:
            with torch.autocast(maps.device.type, enabled=False):
                maps = maps.to(_weight(self.conv1).dtype).contiguous()
                return self.finish(self.conv1(maps), maps if self.same else self.conv3(maps))
        return self.finish(self.conv1(maps), maps if self.same else self.conv3(maps))

    def finish(self, first: Tensor, shortcut: Tensor) -> Tensor:
        """Return the block's output, given the output of its first convolution and the shortcut's."""
        return normalised(self.conv2(normalised(first)), shortcut, both=not self.same)


class DecoderBlock(nn.Module):
    """Enlarge maps to twice the edge, concatenate the encoder's maps, and convolve.

    Args:
        in_channels: channels of the coarse maps.
        out_channels: channels of the encoder's maps, and of the output.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.transp_conv = _within(conv=nn.ConvTranspose3d(in_channels, out_channels, 2, 2, bias=False))
        self.conv_block = ResidualBlock(2 * out_channels, out_channels)

    def forward(self, maps: Tensor, skip: Tensor) -> Tensor:
        """Return maps (B, out, 2 D, 2 H, 2 W).

        Args:
            maps: coarse maps (B, in, D, H, W).
            skip: the encoder's maps (B, out, 2 D, 2 H, 2 W).
        """
        out: Tensor = self.conv_block(torch.cat([self.transp_conv(maps), skip.to(maps.dtype)], 1))
        return out


class LastDecoderBlock(DecoderBlock):
    """A decoder block at full resolution, where most of the arithmetic is, computed in a faster way.

    A convolution of a transposed convolution is itself a transposed convolution. Its kernel has 4³ taps, of which 2³
    contribute to a voxel, instead of 3³ taps on an intermediate map. With many voxels and few channels, composing the
    kernels costs less than it saves.
    """

    def forward(self, maps: Tensor, skip: Tensor) -> Tensor:
        """Return the same as `DecoderBlock.forward`, up to rounding."""
        block, up = self.conv_block, _weight(self.transp_conv)
        three, one = (_weight(conv).split(up.shape[1], 1) for conv in (block.conv1, block.conv3))
        with torch.autocast(maps.device.type, enabled=False):
            composed = F.conv3d(up, three[0], padding=2), F.conv3d(up, one[0])
        first = F.conv_transpose3d(maps, composed[0], stride=2, padding=1) + F.conv3d(skip, three[1], padding=1)
        other = F.conv_transpose3d(maps, composed[1], stride=2) + F.conv3d(skip, one[1])
        return block.finish(first, other)


def _weight(part: nn.Module) -> Tensor:
    return part.get_parameter("conv.weight")


def _within(**modules: nn.Module) -> nn.Sequential:
    """Return a sequence of named modules, nested to match the names in MONAI's state dictionary."""
    return nn.Sequential(OrderedDict(modules))
