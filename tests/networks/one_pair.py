"""One pair of X-rays and volume without symmetry, and how near to it a network comes."""

import torch
from torch import Tensor, nn

# Centre (z, y, x), radius and height of each blob, as parts of the edge.
BLOBS = ((0.3, 0.35, 0.7, 0.2, 0.8), (0.7, 0.7, 0.4, 0.12, 0.6), (0.75, 0.2, 0.25, 0.1, 1.0))


def one_pair(edge: int, axes: tuple[int, ...] = (1, 2)) -> tuple[Tensor, Tensor]:
    """Parallel projections (1, N, S, S), scaled to the X-rays' range, and their volume (1, 1, z, y, x) in [0, 1]."""
    z, y, x = torch.meshgrid(*(torch.linspace(0, 1, edge),) * 3, indexing="ij")
    volume = torch.zeros(edge, edge, edge)
    for a, b, c, radius, height in BLOBS:
        volume += height * torch.exp(-((z - a) ** 2 + (y - b) ** 2 + (x - c) ** 2) / (2 * radius**2))
    volume.clamp_(max=1)
    return torch.stack([3 * volume.mean(axis) for axis in axes])[None], volume[None, None]


def share_left(network: nn.Module, edge: int, steps: int, rate: float, axes: tuple[int, ...] = (1, 2)) -> float:
    """Mean squared error after the given steps of Adam, as a share of that of the best constant volume."""
    images, volume = one_pair(edge, axes)
    optimizer = torch.optim.Adam(network.parameters(), rate)
    for _ in range(steps):
        out = network(images)
        error = ((out if isinstance(out, Tensor) else out[0]) - volume).square().mean()
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
    with torch.no_grad():
        error = (network.eval()(images) - volume).square().mean()
    return float(error / volume.var(correction=0))
