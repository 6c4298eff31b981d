"""Weights for tests: a small Swin UNETR that was never trained, or a network whose output is known; and threads."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from raylift.config.files import parse_recipe
from raylift.geometry import Geometry
from raylift.model.weights import Weights, build_lifted_network, save_weights
from raylift.model.weights_info import Training, WeightsDescription, WeightsInfo
from raylift.storage.records import parse_record


def describe_tiny(
    views: Sequence[str | float] = (0.0, 90.0),
    geometry: Geometry | None = None,
    *,
    opposite_views: bool = True,
    cases: Sequence[str] = (),
) -> dict[str, Any]:
    """The `weights.json` of a small Swin UNETR for 64³ voxels and 64² pixels, without its checksum."""
    recipe = {
        "name": "tiny",
        "views": list(views),
        "lift": "backproject",
        "data": {"opposite_views": opposite_views, "xray_pixels": 64},
        "network": {"name": "swin_unetr", "feature_size": 12, "window_size": 4},
        "objective": {"name": "paired"},
        "train": {"steps": 1},
    }
    unit = geometry or Geometry.preset("chest-stand", 64)
    training = Training(cases=list(cases))
    return WeightsDescription.of(parse_recipe(recipe, "tests"), unit, 64, 320.0, training).to_dict()


def described(info: dict[str, Any]) -> WeightsDescription:
    """The content of a `weights.json` as its record."""
    return parse_record(info, WeightsDescription)


def random_weights(folder: Path, info: dict[str, Any] | None = None) -> Path:
    """Random weights, the same each time, as files in a folder; returns the folder."""
    description = described(info or describe_tiny())
    torch.manual_seed(0)
    save_weights(build_lifted_network(description), description, folder)
    return folder


class Known(nn.Module):
    """A network whose output is a constant plus a weighted sum of the lifted views."""

    def __init__(self, constant: float = 0.0, *shares: float) -> None:
        super().__init__()
        self.constant, self.shares = constant, shares

    def forward(self, volume: Tensor) -> Tensor:
        total = torch.full_like(volume[:, :1], self.constant)
        for channel, share in enumerate(self.shares):
            total = total + share * volume[:, channel : channel + 1]
        return total


def known_weights(network: nn.Module, info: dict[str, Any] | None = None) -> Weights:
    """Weights in memory around a network whose output is known."""
    record = parse_record({**(info or describe_tiny()), "sha256": "0" * 64}, WeightsInfo)
    lifted_network = build_lifted_network(record)
    lifted_network.network = network
    return Weights(lifted_network.eval(), record, Path("known.safetensors"))


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Let PyTorch have so many threads, and then as many as before."""
    threads = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
