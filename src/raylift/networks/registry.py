"""The mapping networks by name; imports no PyTorch, so that commands and their help respond at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from raylift.plugins import Registry, load

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class NetworkEntry:
    """One network of the registry.

    Args:
        path: module:class, or module:function.
        takes: its input: "volume" for the lifted views (B, N, D, H, W), or "images" for the X-rays (B, N, D, W) of the
            lift `image`.
        options: names of the arguments it needs besides its channels and `feature_size`.
        multiple: number of which `feature_size` must be a multiple.
    """

    path: str
    takes: Literal["volume", "images"] = "volume"
    options: tuple[str, ...] = ()
    multiple: int = 1

    @classmethod
    def of_others(cls, path: str) -> NetworkEntry:
        """Return the entry of another package's network, called with `in_channels`, `out_channels`, `feature_size`."""
        return cls(path)


_OWN: dict[str, NetworkEntry] = {
    "swin_unetr": NetworkEntry(
        "raylift.networks.swin_unetr:SwinUNETR", options=("window_size", "checkpointing"), multiple=12
    ),
    "monai_swin_unetr": NetworkEntry(
        "raylift.networks.monai_swin_unetr:SwinUNETR", options=("window_size",), multiple=12
    ),
    "residual_unet": NetworkEntry("raylift.networks.residual_unet:ResidualUNet", options=("voxels",), multiple=2),
    "fine_residual_unet": NetworkEntry(
        "raylift.networks.fine_residual_unet:FineResidualUNet", options=("voxels",), multiple=2
    ),
    "unet": NetworkEntry("raylift.networks.unets:unet"),
    "attention_unet": NetworkEntry("raylift.networks.unets:attention_unet"),
    "unetr": NetworkEntry("raylift.networks.unets:unetr", options=("voxels",)),
    "segresnet": NetworkEntry("raylift.networks.unets:segresnet", multiple=8),
    "dynunet": NetworkEntry("raylift.networks.unets:dynunet"),
    "autoencoder": NetworkEntry("raylift.networks.autoencoder:Autoencoder", "images", ("axes", "voxels")),
    "autoencoder_l2": NetworkEntry("raylift.networks.autoencoder:NormalisedAutoencoder", "images", ("axes", "voxels")),
    "x2ct": NetworkEntry("raylift.networks.x2ct:X2CT", "images", ("axes", "voxels"), multiple=2),
    "ccx_raynet": NetworkEntry("raylift.networks.ccx:CCXRayNet", "images", ("axes", "voxels"), multiple=2),
}


NETWORKS: Registry[NetworkEntry] = Registry("raylift.networks", _OWN, NetworkEntry.of_others)


def available() -> tuple[str, ...]:
    """Return the names of the mapping networks."""
    return tuple(NETWORKS)


def build(
    name: str, *, in_channels: int, out_channels: int, feature_size: int, window_size: int, voxels: int,
    axes: Sequence[int], checkpointing: bool = False,
) -> nn.Module:  # fmt: skip
    """Return a new mapping network.

    It maps lifted views (B, in_channels, D, H, W), or images (B, N, D, W), to a volume (B, out_channels, D, H, W).
    Raises KeyError, through `NETWORKS`, if there is no network of that name.

    Args:
        name: in the registry.
        in_channels: channels of the lifted views.
        out_channels: channels of the volume; 1 for networks that take images.
        feature_size: width of the first stage.
        window_size: edge of the attention windows in tokens, for networks that have them.
        voxels: edge of the volume, for networks that depend on it.
        axes: for each view the axis of (z, y, x) along which it looks, for networks that take images.
        checkpointing: recompute activations for the gradient to save memory, in networks that can.
    """
    entry = NETWORKS[name]
    arguments = {"window_size": window_size, "voxels": voxels, "axes": axes, "checkpointing": checkpointing}
    options: dict[str, Any] = {option: arguments[option] for option in entry.options}
    if entry.takes == "volume":
        options |= {"in_channels": in_channels, "out_channels": out_channels}
    network: nn.Module = load(entry.path)(feature_size=feature_size, **options)
    return network
