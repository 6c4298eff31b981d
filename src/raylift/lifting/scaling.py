"""What the network sees of X-rays: line integrals divided by a constant, or pictures."""

from __future__ import annotations

from torch import Tensor

# A chest's line integrals run from 0 to about 8; the network sees them divided by this.
XRAY_SCALE = 4.0


def as_pictures(xrays: Tensor) -> Tensor:
    """X-rays as 8-bit pictures, as the published program reads them: each scaled by its own minimum and maximum.

    Args:
        xrays: line integrals (..., rows, columns).

    Returns:
        The same shape, in [0, `XRAY_SCALE`], 256 levels; gradients pass the rounding.
    """
    low, high = xrays.amin((-2, -1), keepdim=True), xrays.amax((-2, -1), keepdim=True)
    scaled = (xrays - low) / (high - low).clamp_min(1e-6)
    rounded = scaled + ((255 * scaled).round() / 255 - scaled).detach()
    return XRAY_SCALE * rounded
