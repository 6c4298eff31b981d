"""The mapping networks by name; imports no PyTorch, so that commands and help answer at once."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

# name -> module:class; each takes (in_channels, out_channels, feature_size, window_size).
NETWORKS: dict[str, str] = {"swin_unetr": "raylift.networks.swin_unetr:SwinUNETR"}


def available() -> tuple[str, ...]:
    """Names of the mapping networks."""
    return tuple(NETWORKS)


def build(name: str, *, in_channels: int, out_channels: int, feature_size: int, window_size: int) -> nn.Module:
    """A mapping network (B, in_channels, D, H, W) → (B, out_channels, D, H, W).

    Raises:
        KeyError: the name is not in the registry.
    """
    module, _, attribute = NETWORKS[name].partition(":")
    network = getattr(importlib.import_module(module), attribute)
    built: nn.Module = network(in_channels, out_channels, feature_size, window_size)
    return built
