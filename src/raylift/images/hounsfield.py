"""Hounsfield units, the network's window and attenuation, each into the other."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np

# The network's window: [-1000, 1000] HU <-> [0, 1].
WINDOW = (-1000.0, 1000.0)
# An array or a tensor.
Values = TypeVar("Values", bound=Any)
# Attenuation of water at the energies of a chest radiograph, per mm.
WATER_MU = 0.02


def hu_to_normalised(hu: np.ndarray) -> np.ndarray:
    """Hounsfield units to the network's window [0, 1], clipped."""
    low, high = WINDOW
    return (np.clip(hu, low, high) - low) / (high - low)


def normalised_to_hu(unit: Values) -> Values:
    """The network's [0, 1] back to Hounsfield units; the inverse of `hu_to_normalised` inside the window."""
    low, high = WINDOW
    return unit * (high - low) + low


def normalised_to_mu(normalised: Values) -> Values:
    """Convert the network's [0, 1], an array or tensor of any shape, to linear attenuation in mm⁻¹, or a difference."""
    low, high = WINDOW
    return normalised * (WATER_MU * (high - low) / 1000)


def hu_to_mu(hu: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """Hounsfield units, an array of any shape, to linear attenuation in mm⁻¹: μ = 0.02·(1 + HU/1000), never below 0.

    Args:
        hu: values.
        out: an array of floating point numbers to fill, and to compute in.
    """
    mu = np.multiply(hu, WATER_MU / 1000, out=out, dtype=None if out is None else out.dtype)
    mu += WATER_MU
    return np.maximum(mu, 0, out=mu if mu.ndim else None)
