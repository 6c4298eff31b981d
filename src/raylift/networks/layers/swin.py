"""Swin transformer (Liu et al. 2021) on volumes: attention in windows, shifted by half in every other block."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from raylift.networks.layers.attention import Windows, attend, relative_positions, windows_of
from raylift.networks.layers.normalisation import LayerNorm, layer_norm


class WindowAttention(nn.Module):
    """Multi-head self-attention in windows, with a bias for each relative position of two tokens.

    Args:
        width: channels of a token.
        heads: number of attention heads, among which the channels are divided.
        window: edge of the windows in tokens, for which the bias is learned.
    """

    relative_position_index: Tensor

    def __init__(self, width: int, heads: int, window: int) -> None:
        super().__init__()
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * window - 1) ** 3, heads))
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)
        self.register_buffer("relative_position_index", relative_positions(window).clone())
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, tokens: Tensor, windows: Windows) -> Tensor:
        """Return tokens (B, D, H, W, C), each computed from those of its window."""
        n = windows.indices.shape[1]
        bias = self.relative_position_bias_table[self.relative_position_index[:n, :n]].permute(2, 0, 1)
        values = attend(self.qkv(tokens).flatten(1, 3), self.qkv.bias, bias, windows)
        out: Tensor = self.proj(values.view(tokens.shape))
        return out


class Block(nn.Module):
    """Attention and a perceptron, each after a layer normalisation and with a residual connection.

    Args:
        width: channels of a token.
        heads: number of attention heads.
        window: edge of the windows in tokens.
        shifted: whether the windows are shifted by half their edge.
    """

    def __init__(self, width: int, heads: int, window: int, shifted: bool) -> None:
        super().__init__()
        self.window, self.shift = window, window // 2 if shifted else 0
        self.norm1, self.norm2 = LayerNorm(width), LayerNorm(width)
        self.attn = WindowAttention(width, heads, window)
        self.mlp = Perceptron(width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return tokens (B, D, H, W, C) for tokens of the same shape."""
        tokens = tokens + self._attend(self.norm1(tokens))
        out: Tensor = tokens + self.mlp(self.norm2(tokens))
        return out

    def _attend(self, tokens: Tensor) -> Tensor:
        grid = tokens.shape[1:4]
        # Along an axis where the grid is no larger than the window, there is one window, and no shift.
        window: Any = tuple(min(self.window, size) for size in grid)
        shift: Any = tuple(self.shift if size > self.window else 0 for size in grid)
        out: Tensor = self.attn(tokens, windows_of(tuple(grid), window, shift))
        return out


class Perceptron(nn.Module):
    """Two linear layers with four times the channels between them.

    Args:
        width: channels of a token.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear1, self.linear2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return tokens (..., C) for tokens (..., C)."""
        out: Tensor = self.linear2(F.gelu(self.linear1(tokens)))
        return out


class Merging(nn.Module):
    """Merge eight neighbouring tokens into one of twice the channels.

    Args:
        width: channels of a token.
    """

    # Offsets of the neighbours along (z, y, x), in the order of their channels.
    ORDER = ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (1, 0, 1), (0, 1, 1), (1, 1, 1))

    def __init__(self, width: int) -> None:
        super().__init__()
        self.reduction = nn.Linear(8 * width, 2 * width, bias=False)
        self.norm = LayerNorm(8 * width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return tokens (B, D/2, H/2, W/2, 2 C) for tokens (B, D, H, W, C) with even edges."""
        out: Tensor = self.reduction(self.norm(torch.cat([tokens[:, z::2, y::2, x::2] for z, y, x in self.ORDER], -1)))
        return out


class Stage(nn.Module):
    """Two blocks, the second one shifted, followed by the merging of neighbouring tokens.

    Args:
        width: channels of a token.
        heads: number of attention heads.
        window: edge of the windows in tokens.
    """

    def __init__(self, width: int, heads: int, window: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(width, heads, window, shifted) for shifted in (False, True))
        self.downsample = Merging(width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return tokens (B, D/2, H/2, W/2, 2 C) for tokens (B, D, H, W, C)."""
        for block in self.blocks:
            tokens = block(tokens)
        out: Tensor = self.downsample(tokens)
        return out


class PatchEmbedding(nn.Module):
    """Turn patches of 2³ voxels into tokens.

    Args:
        in_channels: channels of the volume.
        width: channels of a token.
    """

    def __init__(self, in_channels: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv3d(in_channels, width, 2, 2)

    def forward(self, volume: Tensor) -> Tensor:
        """Return tokens (B, D/2, H/2, W/2, width) for volumes (B, in, D, H, W)."""
        out: Tensor = self.proj(volume).permute(0, 2, 3, 4, 1).contiguous()
        return out


class SwinTransformer(nn.Module):
    """The encoder of Swin UNETR, with tokens of 2, 4, 8, 16 and 32 voxels along each edge.

    Args:
        in_channels: channels of the volume.
        width: channels of the first tokens; each stage doubles them.
        window: edge of the windows in tokens.
        checkpointing: stages recompute their activations for the gradient instead of storing them.
    """

    def __init__(self, in_channels: int, width: int, window: int, checkpointing: bool = False) -> None:
        super().__init__()
        self.checkpointing = checkpointing
        self.patch_embed = PatchEmbedding(in_channels, width)
        for k, heads in enumerate((3, 6, 12, 24)):
            setattr(self, f"layers{k + 1}", nn.ModuleList([Stage(width << k, heads, window)]))

    def forward(self, volume: Tensor) -> list[Tensor]:
        """Return five maps (B, 2ᵏ width, D/2ᵏ⁺¹, ...) of volumes (B, in, D, H, W), each normalised over channels."""
        tokens = self.patch_embed(volume)
        maps = [tokens]
        for k in range(1, 5):
            (stage,) = getattr(self, f"layers{k}")
            if self.checkpointing and torch.is_grad_enabled():  # a stage has no random operations
                tokens = checkpoint(stage, tokens, use_reentrant=False, preserve_rng_state=False)
            else:
                tokens = stage(tokens)
            maps.append(tokens)
        # The result is in channels-last layout, so the permutation copies nothing.
        return [layer_norm(tokens).permute(0, 4, 1, 2, 3) for tokens in maps]
