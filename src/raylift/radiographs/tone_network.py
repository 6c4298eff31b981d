"""A network that recognises the tone curve of a chest radiograph from what the picture shows.

A display shows line integrals through an unknown monotone function, which changes all grey levels but not their order.
The network therefore sees ranks: the share of a picture's pixels that are darker than each pixel. From them it predicts
the line integrals at equidistant ranks, so that pictures of one X-ray under all tone curves give the same integrals.
Several networks, trained from different seeds, are averaged; their spread is part of the curve's uncertainty.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from raylift.errors import BadInput
from raylift.geometry import View
from raylift.images.tone_curve import ToneCurve
from raylift.storage.atomic import atomic_write

KNOTS = 33  # ranks 0, 1/32, ... 1 at which line integrals are predicted
EDGE_PIXELS = 64  # pixels along an edge of the small pictures
WIDTH = 12  # channels of the first layer; they double with each of the next two
DROPOUT = 0.3
PRETRAINED = Path(__file__).parents[1] / "pretrained" / "tone.safetensors"


class ToneNetwork(nn.Module):
    """Ranks and exposed field of pictures, and the angles of their views → line integrals at `KNOTS` ranks."""

    def __init__(self) -> None:
        super().__init__()
        widths = (6, WIDTH, 2 * WIDTH, 4 * WIDTH, 4 * WIDTH)
        self.features = nn.Sequential(*(_block(a, b) for a, b in itertools.pairwise(widths)))
        size = widths[-1] * (EDGE_PIXELS // 16) ** 2
        self.head = nn.Sequential(
            nn.Dropout(DROPOUT), nn.Linear(size + 4, 64), nn.SiLU(), nn.Dropout(DROPOUT), nn.Linear(64, KNOTS - 1)
        )

    def forward(self, ranks: Tensor, exposed: Tensor, angles: Tensor) -> Tensor:
        """Return the line integrals (B, KNOTS) at the knots, which begin with 0 and do not decrease.

        Args:
            ranks: of the pixels, (B, EDGE_PIXELS, EDGE_PIXELS) in [0, 1]; 0 beyond the exposed field.
            exposed: mask of the exposed field, of the same shape.
            angles: of the views in radians, (B,).
        """
        waves = torch.stack([angles.cos(), angles.sin(), (2 * angles).cos(), (2 * angles).sin()], 1)
        planes = waves[:, :, None, None].expand(-1, -1, *ranks.shape[1:])
        features = self.features(torch.cat([ranks[:, None], exposed[:, None].to(ranks), planes], 1))
        steps = F.softplus(self.head(torch.cat([features.flatten(1), waves], 1)) - 2)
        return F.pad(steps.cumsum(1), (1, 0))


def _block(channels_in: int, channels_out: int) -> nn.Sequential:
    """Return two convolutions, the first of which halves the resolution."""
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, 3, 2, 1), nn.GroupNorm(4, channels_out), nn.SiLU(),
        nn.Conv2d(channels_out, channels_out, 3, 1, 1), nn.GroupNorm(4, channels_out), nn.SiLU(),
    )  # fmt: skip


def ranks_of(levels: np.ndarray, exposed: np.ndarray) -> np.ndarray:
    """Return the share of the exposed pixels that are darker than each pixel, (rows, columns), float32.

    Equal levels share the mean of their ranks. Beyond the exposed field the rank is 0.
    """
    sorted_levels = np.sort(levels[exposed])
    darker, not_brighter = (np.searchsorted(sorted_levels, levels, side) for side in ("left", "right"))
    ranks = (darker + not_brighter) / (2 * len(sorted_levels))
    return np.where(exposed, ranks, 0).astype(np.float32)


def small_picture(levels: np.ndarray, exposed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return a picture and the mask of its exposed field, padded to a square and averaged to `EDGE_PIXELS`²."""
    edge = max(levels.shape)
    margins = [((edge - n) // 2, edge - n - (edge - n) // 2) for n in levels.shape]
    padded, mask = np.pad(levels, margins, "edge"), np.pad(exposed, margins)
    both = torch.from_numpy(np.stack([padded, mask]).astype(np.float32))[None]
    picture, share = F.interpolate(both, (EDGE_PIXELS,) * 2, mode="area")[0].numpy()
    return picture, share > min(0.5, 0.5 * float(share.max()))


def at_ranks(knots: Tensor, ranks: Tensor) -> Tensor:
    """Return the line integrals (B, rows, columns) at ranks of this shape, linear between the knots (B, KNOTS)."""
    position = (ranks * (KNOTS - 1)).clamp(0, KNOTS - 1 - 1e-4)
    below = position.floor().long()
    share, flat = position - below, below.flatten(1)
    low, high = (knots.gather(1, index).view_as(ranks) for index in (flat, flat + 1))
    return low + share * (high - low)


@dataclass(frozen=True)
class ToneModel:
    """Tone networks whose predictions are averaged.

    Args:
        networks: at least one.
        error: standard deviation of the mean's error, as a share of the line integral, on patients not trained on.
    """

    networks: tuple[ToneNetwork, ...]
    error: float

    @torch.no_grad()
    def curve(self, levels: np.ndarray, exposed: np.ndarray, view: View) -> ToneCurve:
        """Return the tone curve of a picture.

        Args:
            levels: grey levels (rows, columns) that rise with attenuation, oriented for reading.
            exposed: mask of the exposed field.
            view: of the picture.
        """
        small, mask = small_picture(levels, exposed)
        if view.mirrored:
            small, mask = small[:, ::-1], mask[:, ::-1]
        ranks = torch.from_numpy(ranks_of(small, mask))[None]
        angle = torch.tensor([math.radians(view.angle)])
        inputs = (ranks, torch.from_numpy(mask.copy())[None], angle)
        predicted = torch.cat([network(*inputs) for network in self.networks]).double().numpy()
        knots = np.quantile(small[mask], np.linspace(0, 1, KNOTS))
        mean, spread = predicted.mean(0), predicted.std(0)
        return ToneCurve.through(knots, mean, np.hypot(spread, self.error * mean))

    def save(self, path: Path) -> None:
        """Write the model to a safetensors file."""
        members = nn.ModuleList(self.networks).state_dict()
        with atomic_write(path) as temporary:
            save_file({**members, "error": torch.tensor(self.error)}, temporary)

    @classmethod
    def load(cls, path: Path) -> ToneModel:
        """Read a model from a file that `save` wrote.

        Returns:
            The model.

        Raises:
            BadInput: the file is damaged.
        """
        try:
            tensors = load_file(path)
            share = float(tensors.pop("error"))
            networks = [ToneNetwork().eval() for _ in {name.split(".")[0] for name in tensors}]
            nn.ModuleList(networks).load_state_dict(tensors)
        except (OSError, SafetensorError, KeyError, RuntimeError) as error:
            raise BadInput(path, f"damaged ({str(error).splitlines()[0]})", "copy it again") from None
        return cls(tuple(networks), share)


@lru_cache(1)
def pretrained_tone_model() -> ToneModel:
    """Return the model that comes with Raylift."""
    return ToneModel.load(PRETRAINED)
