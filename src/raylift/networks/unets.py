"""Off-the-shelf U-shaped networks from MONAI as mapping networks, each at its usual proportions.

All map lifted views (B, in_channels, D, H, W) to volumes (B, out_channels, D, H, W) with any real values; spatial sizes
must be multiples of 16.
"""

from __future__ import annotations

from monai.networks.nets.attentionunet import AttentionUnet
from monai.networks.nets.dynunet import DynUNet
from monai.networks.nets.segresnet import SegResNet
from monai.networks.nets.unet import UNet
from monai.networks.nets.unetr import UNETR
from torch import nn

RESOLUTIONS = 5


def _widths(feature_size: int) -> list[int]:
    return [feature_size * 2**level for level in range(RESOLUTIONS)]


def unet(in_channels: int, out_channels: int, feature_size: int) -> nn.Module:
    """Return the residual 3D U-Net of Kerfoot et al. 2018; MONAI's examples use feature size 16."""
    return UNet(3, in_channels, out_channels, _widths(feature_size), [2] * (RESOLUTIONS - 1), num_res_units=2)


def attention_unet(in_channels: int, out_channels: int, feature_size: int) -> nn.Module:
    """Return the Attention U-Net of Oktay et al. 2018; published with feature size 16 to 64."""
    return AttentionUnet(3, in_channels, out_channels, _widths(feature_size), [2] * (RESOLUTIONS - 1))


def unetr(in_channels: int, out_channels: int, feature_size: int, voxels: int) -> nn.Module:
    """Return the UNETR of Hatamizadeh et al. 2022, with a vision transformer of 12 layers and patches of 16³.

    The transformer's width is 48 × `feature_size`, so feature size 16 gives the published 768.
    """
    width = 48 * feature_size
    return UNETR(in_channels, out_channels, voxels, feature_size, hidden_size=width, mlp_dim=4 * width, num_heads=12)


def segresnet(in_channels: int, out_channels: int, feature_size: int) -> nn.Module:
    """Return the network of Myronenko 2018 without its variational branch; published with feature size 32."""
    return SegResNet(3, feature_size, in_channels, out_channels, blocks_down=(1, 2, 2, 4), blocks_up=(1, 1, 1))


def dynunet(in_channels: int, out_channels: int, feature_size: int) -> nn.Module:
    """Return nnU-Net's architecture (Isensee et al. 2021) with residual blocks; published with feature size 32."""
    kernels, strides = [3] * RESOLUTIONS, [1] + [2] * (RESOLUTIONS - 1)
    return DynUNet(
        3, in_channels, out_channels, kernels, strides, strides[1:], filters=_widths(feature_size), res_block=True
    )
