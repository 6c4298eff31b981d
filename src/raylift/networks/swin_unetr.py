"""Swin UNETR (Hatamizadeh et al. 2022), the paper's mapping network: MONAI's function and weights, but faster."""

from __future__ import annotations

from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import convert_conv3d_weight_memory_format

from raylift.networks.layers.convolution import Conv3d
from raylift.networks.layers.normalisation import normalised
from raylift.networks.layers.swin import SwinTransformer

# Edge of maps below which oneDNN's bfloat16 gradient of a 3³ convolution is garbage (PyTorch 2.13).
SMALLEST = 4


class SwinUNETR(nn.Module):
    """A U-shaped network of windowed self-attention: (B, in, D, H, W) → (B, out, D, H, W).

    Its state is that of `monai.networks.nets.SwinUNETR` (version 2 of the library's blocks left out), name for name.

    Args:
        in_channels: channels of the lifted views.
        out_channels: channels of the volume.
        feature_size: width of the first stage, a multiple of 12; the paper's is 48.
        window_size: edge of the attention windows in tokens. An input of 64 has token grids of 32, 16, 8 and 4: a
            window of 4 divides them all, the paper's 7 pads each.
        checkpointing: the transformer keeps no activations for its gradient and computes them again.

    Spatial sizes must be multiples of 32, and more than 32 along one axis at least (instance normalisation). Raises
    ValueError for other feature sizes.
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
            raise ValueError(f"feature_size {feature_size} is no multiple of 12")
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
        # Its maps are tiny and its kernels large: PyTorch would copy these at every step.
        convert_conv3d_weight_memory_format(self.encoder10, torch.contiguous_format)

    def forward(self, volume: Tensor) -> Tensor:
        """(B, in_channels, D, H, W) → (B, out_channels, D, H, W), any real value."""
        volume = volume.contiguous(memory_format=torch.channels_last_3d)
        maps = self.swinViT(volume)
        out = self.decoder5(self.encoder10(maps[4]), maps[3])
        out = self.decoder4(out, self.encoder4(maps[2]))
        out = self.decoder3(out, self.encoder3(maps[1]))
        out = self.decoder2(out, self.encoder2(maps[0]))
        out = self.decoder1(out, self.encoder1(volume))
        made: Tensor = self.out(out)
        return made


class ResidualBlock(nn.Module):
    """Two 3³ convolutions beside a 1³ one, or beside nothing where the channels stay.

    Args:
        in_channels: before.
        out_channels: after.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv1 = _within(conv=Conv3d(in_channels, out_channels, 3, padding=1, bias=False))
        self.conv2 = _within(conv=Conv3d(out_channels, out_channels, 3, padding=1, bias=False))
        if in_channels != out_channels:
            self.conv3 = _within(conv=Conv3d(in_channels, out_channels, 1, bias=False))
        self.same = in_channels == out_channels

    def forward(self, maps: Tensor) -> Tensor:
        """(B, in, D, H, W) → (B, out, D, H, W)."""
        if min(maps.shape[2:]) < SMALLEST:
            with torch.autocast(maps.device.type, enabled=False):
                maps = maps.to(_weight(self.conv1).dtype).contiguous()
                return self.finish(self.conv1(maps), maps if self.same else self.conv3(maps))
        return self.finish(self.conv1(maps), maps if self.same else self.conv3(maps))

    def finish(self, first: Tensor, beside: Tensor) -> Tensor:
        """What follows the first convolution, and the one beside it."""
        return normalised(self.conv2(normalised(first)), beside, both=not self.same)


class DecoderBlock(nn.Module):
    """Twice the edge, then the encoder's maps beside.

    Args:
        in_channels: of the coarse maps.
        out_channels: of the encoder's maps, and after.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.transp_conv = _within(conv=nn.ConvTranspose3d(in_channels, out_channels, 2, 2, bias=False))
        self.conv_block = ResidualBlock(2 * out_channels, out_channels)

    def forward(self, maps: Tensor, beside: Tensor) -> Tensor:
        """(B, in, D, H, W) and (B, out, 2 D, 2 H, 2 W) → (B, out, 2 D, 2 H, 2 W)."""
        out: Tensor = self.conv_block(torch.cat([self.transp_conv(maps), beside.to(maps.dtype)], 1))
        return out


class LastDecoderBlock(DecoderBlock):
    """A decoder block at full size, where most of the arithmetic is.

    A convolution of a transposed convolution is a transposed convolution: 4³ taps, of which 2³ meet a voxel, instead
    of 3³ taps on maps that have to be written first. Where voxels are many and channels few, composing the kernels
    costs less than it saves.
    """

    def forward(self, maps: Tensor, beside: Tensor) -> Tensor:
        """As `DecoderBlock.forward`."""
        block, up = self.conv_block, _weight(self.transp_conv)
        three, one = (_weight(conv).split(up.shape[1], 1) for conv in (block.conv1, block.conv3))
        with torch.autocast(maps.device.type, enabled=False):
            composed = F.conv3d(up, three[0], padding=2), F.conv3d(up, one[0])
        first = F.conv_transpose3d(maps, composed[0], stride=2, padding=1) + F.conv3d(beside, three[1], padding=1)
        other = F.conv_transpose3d(maps, composed[1], stride=2) + F.conv3d(beside, one[1])
        return block.finish(first, other)


def _weight(part: nn.Module) -> Tensor:
    return part.get_parameter("conv.weight")


def _within(**modules: nn.Module) -> nn.Sequential:
    """A module under a name, as MONAI's state has it."""
    return nn.Sequential(OrderedDict(modules))
