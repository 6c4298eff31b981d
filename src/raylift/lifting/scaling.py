"""Scaling of X-rays for the network: line integrals divided by a constant, or 8-bit pictures."""

from __future__ import annotations

from torch import Tensor

# A chest's line integrals range from 0 to about 8; the network receives them divided by this.
XRAY_SCALE = 4.0


def as_pictures(xrays: Tensor) -> Tensor:
    """Convert X-rays to 8-bit pictures as the published program reads them, each scaled by its minimum and maximum.

    Args:
        xrays: line integrals (..., rows, columns).

    Returns:
        Pictures of the same shape in [0, `XRAY_SCALE`], with 256 levels; the gradient ignores the rounding.
    """
    low, high = xrays.amin((-2, -1), keepdim=True), xrays.amax((-2, -1), keepdim=True)
    scaled = (xrays - low) / (high - low).clamp_min(1e-6)
    rounded = scaled + ((255 * scaled).round() / 255 - scaled).detach()
    return XRAY_SCALE * rounded
