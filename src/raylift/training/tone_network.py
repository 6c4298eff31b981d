"""Training of the networks that recognise tone curves; see `raylift.radiographs.tone_network`.

    python -m raylift.training.tone_network --data prepared -o tone.safetensors

X-rays of warped scans are shown as pictures might show them: cropped, with noise, letters and things of little
attenuation beside the patient. Tone curves need not be drawn, since the networks see ranks. The loss is the mean
absolute difference between the line integrals by the predicted curve and the true ones, as a share of their mean.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from raylift.config.files import load_recipe
from raylift.data.dataset import PreparedDataset
from raylift.data.pairs import OnlinePairs
from raylift.radiographs.tone_network import EDGE_PIXELS, ToneModel, ToneNetwork, at_ranks, ranks_of, small_picture

XRAYS, STEPS, BATCH = 20_000, 3500, 32  # X-rays that are drawn; steps; pictures in a step
RATE, WEIGHT_DECAY = 2e-3, 0.1
# How the scans are warped beyond what the recipe of the volumes' networks does, and views and geometries drawn.
DRAWN = {"any_views": 0.35, "any_geometry": 0.3, "xray_pixels": EDGE_PIXELS, "projection_spacing": 6.0}
WARPED = {"rotation": 12.0, "scaling": 0.2, "elastic": 12.0, "shift": 30.0, "opacities": 0.6}
CROPPED, LEAST_LEFT = 0.6, 0.6  # share of the pictures that are cropped, and least share of an edge that is left
CLUTTER, FAINT = 2, 0.6  # most boxes beside the patient, and largest line integral through one
DIMMED = 0.3  # share of the pictures in which what attenuates little is dimmed, as if there were no table
LETTERED, LETTERS = 0.35, 3  # share of the pictures with letters, and most of them
NOISES = (0.0, 0.0, 0.01, 0.03)  # standard deviations of the noise, one of which is drawn


@dataclass(frozen=True)
class Xrays:
    """X-rays to learn from.

    Args:
        images: line integrals (N, EDGE_PIXELS, EDGE_PIXELS), not mirrored.
        angles: of their views in degrees, (N,).
    """

    images: np.ndarray
    angles: np.ndarray

    @classmethod
    def draw(cls, dataset: PreparedDataset, split: str, count: int, seed: int) -> Xrays:
        """Return X-rays of warped scans of a dataset's split, from a seed."""
        recipe = load_recipe("any-views")
        augmentation = recipe.data.augmentation.model_copy(update=WARPED)
        settings = recipe.data.model_copy(update={**DRAWN, "augmentation": augmentation})
        cases = dataset.cases(split)
        pairs = OnlinePairs(dataset, cases, recipe.view_list, settings, torch.device("cpu"), seed, voxels=1)
        images: list[np.ndarray] = []
        angles: list[float] = []
        number = 0
        while len(images) < count:
            batch = pairs.batch(number, 2)
            number += 1
            for xrays in batch.xrays.numpy():
                images += [
                    image[:, ::-1] if view.mirrored else image for image, view in zip(xrays, batch.views, strict=True)
                ]
                angles += [view.angle for view in batch.views]
        return cls(np.stack(images[:count]).astype(np.float16), np.array(angles[:count], np.float32))


def picture(image: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Show line integrals (EDGE_PIXELS, EDGE_PIXELS) as a picture might.

    Returns:
        The line integrals; what the picture shows, whose order counts alone; the mask of the exposed field; and that
        of the pixels whose curve can be known, which no letter covers.
    """
    exposed = np.ones(image.shape, bool)
    if rng.random() < CROPPED:
        rows, columns = (rng.uniform(LEAST_LEFT, 1, 2) * EDGE_PIXELS).astype(int)
        top, left = rng.integers(0, EDGE_PIXELS - rows + 1), rng.integers(0, EDGE_PIXELS - columns + 1)
        part = image[top : top + rows, left : left + columns]
        image, exposed = small_picture(part, np.ones(part.shape, bool))
    image = image.astype(np.float32)
    for _ in range(rng.integers(CLUTTER + 1)):
        image[_box(rng, EDGE_PIXELS)] += rng.uniform(0, FAINT)
    if rng.random() < DIMMED:
        image *= np.clip(image / rng.uniform(0.1, 0.8), 0, 1) ** rng.uniform(0, 2)
    known = exposed.copy()
    if rng.random() < LETTERED:
        for _ in range(rng.integers(1, LETTERS + 1)):
            known[_box(rng, 7)] = False
    shown = image + rng.choice(NOISES) * (1 + 0.2 * image) * rng.standard_normal(image.shape)
    shown[exposed & ~known] = 1.2 * image.max()
    return image, shown.astype(np.float32), exposed, known


def _box(rng: np.random.Generator, most: int) -> tuple[slice, slice]:
    """Return the rows and columns of a random box of 2 to `most` − 1 pixels along its edges."""
    height, width = rng.integers(2, most, 2)
    top, left = rng.integers(-EDGE_PIXELS // 4, EDGE_PIXELS, 2)
    return slice(max(top, 0), max(top + height, 0)), slice(max(left, 0), max(left + width, 0))


def relative_error(network: ToneNetwork, pictures: Sequence[tuple[np.ndarray, ...]], angles: np.ndarray) -> Tensor:
    """Return the mean absolute errors (B,) of pictures' line integrals, as shares of their means.

    Args:
        network: predicts the curves.
        pictures: results of `picture`.
        angles: of their views in degrees, (B,).
    """
    image, exposed, known = (torch.from_numpy(np.stack([one[k] for one in pictures])) for k in (0, 2, 3))
    ranks = torch.from_numpy(np.stack([ranks_of(shown, field) for _, shown, field, _ in pictures]))
    predicted = at_ranks(network(ranks, exposed, torch.from_numpy(np.radians(angles))), ranks)
    return ((predicted - image).abs() * known).sum((1, 2)) / (image * known).sum((1, 2)).clamp_min(1e-6)


def train_tone_network(xrays: Xrays, seed: int, steps: int = STEPS) -> ToneNetwork:
    """Return a network trained on X-rays, from a seed."""
    torch.manual_seed(seed)
    rng, network = np.random.default_rng(seed), ToneNetwork()
    optimiser = torch.optim.AdamW(network.parameters(), RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=steps, pct_start=0.05)
    errors = []
    for step in range(1, steps + 1):
        chosen = rng.integers(len(xrays.images), size=BATCH)
        pictures = [picture(xrays.images[k], rng) for k in chosen]
        error = relative_error(network, pictures, xrays.angles[chosen]).mean()
        optimiser.zero_grad()
        error.backward()
        optimiser.step()
        schedule.step()
        errors.append(float(error.detach()))
        if step % 250 == 0:
            print(f"seed {seed}: step {step} of {steps}, error {np.mean(errors[-250:]):.3f}", flush=True)
    return network.eval()


@torch.no_grad()
def measured_error(networks: Sequence[ToneNetwork], xrays: Xrays) -> float:
    """Return the mean relative error of the networks on X-rays that are shown whole."""
    whole = [(image, image, *[np.ones(image.shape, bool)] * 2) for image in xrays.images.astype(np.float32)]
    return float(np.mean([float(relative_error(network, whole, xrays.angles).mean()) for network in networks]))


def main() -> None:
    """Train tone networks on a prepared dataset, and write them to a file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="prepared dataset")
    parser.add_argument("-o", "--output", type=Path, required=True, help="safetensors file")
    parser.add_argument("--split", default="all", help="train, validation or all")
    parser.add_argument("--seeds", type=int, default=3, help="number of networks")
    parser.add_argument("--error", type=float, help="of the networks on other patients; measured without --split all")
    options = parser.parse_args()
    dataset = PreparedDataset(options.data)
    xrays = Xrays.draw(dataset, options.split, XRAYS, seed=0)
    networks = [train_tone_network(xrays, seed) for seed in range(options.seeds)]
    error = options.error
    if options.split == "train":
        error = measured_error(networks, Xrays.draw(dataset, "validation", 400, seed=1))
        print(f"mean relative error on the validation patients: {error:.3f}")
    if error is None:
        parser.error("--split all needs --error, as measured with --split train")
    ToneModel(tuple(networks), error).save(options.output)


if __name__ == "__main__":
    main()
