"""A mapping network that takes milliseconds, for tests of what surrounds a network."""

from torch import Tensor, nn


class TinyNetwork(nn.Module):
    """Two convolutions: (B, in, D, H, W) → (B, out, D, H, W)."""

    def __init__(self, in_channels: int, out_channels: int, feature_size: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv3d(in_channels, feature_size, 3, padding=1),
            nn.LeakyReLU(0.1),
            nn.Conv3d(feature_size, out_channels, 3, padding=1),
        )

    def forward(self, volume: Tensor) -> Tensor:
        out: Tensor = self.layers(volume)
        return out
