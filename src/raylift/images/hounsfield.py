"""Conversions between Hounsfield units, the network's window [0, 1] and linear attenuation."""

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
    """Return Hounsfield units, an array of any shape, as values in the network's window [0, 1], clipped."""
    low, high = WINDOW
    normalised: np.ndarray = (np.clip(hu, low, high) - low) / (high - low)
    return normalised


def normalised_to_hu(normalised: Values) -> Values:
    """Return values of the network's window [0, 1] in Hounsfield units; inverts `hu_to_normalised` in the window."""
    low, high = WINDOW
    hu: Values = normalised * (high - low) + low
    return hu


def normalised_to_mu(normalised: Values) -> Values:
    """Return values of the network's window [0, 1], or differences of such, as linear attenuation in mm⁻¹."""
    low, high = WINDOW
    mu: Values = normalised * (WATER_MU * (high - low) / 1000)
    return mu


def hu_to_mu(hu: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """Convert Hounsfield units to linear attenuation in mm⁻¹, μ = 0.02·(1 + HU/1000), at least 0.

    Args:
        hu: values, an array of any shape.
        out: floating-point array of that shape to write the result to, which also sets the precision; None for a new
            array.

    Returns:
        The attenuation, of the shape of `hu`.
    """
    mu = np.multiply(hu, WATER_MU / 1000, out=out, dtype=None if out is None else out.dtype)
    mu += WATER_MU
    clipped: np.ndarray = np.maximum(mu, 0, out=mu if mu.ndim else None)
    return clipped
