"""Training of the networks that recognise tone curves."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from raylift.data.dataset import PreparedDataset
from raylift.radiographs.tone_network import EDGE_PIXELS, ToneModel
from raylift.training import tone_network as training
from raylift.training.tone_network import Xrays, measured_error, picture, train_tone_network


@pytest.fixture(scope="module")
def xrays(prepared: Path) -> Xrays:
    return Xrays.draw(PreparedDataset(str(prepared)), "train", 24, seed=0)


def test_a_picture_keeps_the_truth_of_what_it_shows(xrays: Xrays) -> None:
    rng = np.random.default_rng(0)
    for number in range(24):
        image, shown, exposed, known = picture(xrays.images[number], rng)
        assert image.shape == shown.shape == exposed.shape == (EDGE_PIXELS, EDGE_PIXELS)
        assert not (known & ~exposed).any()
        assert known.any()
        assert image.min() >= 0
        # Letters are brighter than all else.
        assert (shown[exposed & ~known] >= 1.19 * image.max()).all()
        if known.sum() > 100:
            assert np.corrcoef(image[known], shown[known])[0, 1] > 0.95


def test_a_seed_gives_the_same_network_and_more_steps_a_better_one(xrays: Xrays) -> None:
    first, again = (train_tone_network(xrays, 1, 3) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    assert measured_error([train_tone_network(xrays, 1, 40)], xrays) < 0.8 * measured_error([first], xrays)


def test_the_command(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "XRAYS", 8)
    monkeypatch.setattr(training, "STEPS", 2)
    monkeypatch.setattr(training, "train_tone_network", lambda xrays, seed: train_tone_network(xrays, seed, 2))
    output = tmp_path / "tone.safetensors"
    arguments = ["--data", str(prepared), "-o", str(output), "--split", "train", "--seeds", "2"]
    monkeypatch.setattr(sys, "argv", ["tone_network", *arguments])
    training.main()
    model = ToneModel.load(output)
    assert len(model.networks) == 2
    assert model.error > 0
