"""X-ray units with a name. Imports nothing, so that commands know their choices at once."""

from __future__ import annotations

from typing import Any

# What `Geometry` is made of, besides its pixels.
UNITS: dict[str, dict[str, Any]] = {
    "chest-stand": {"sad": 1600.0, "sdd": 1800.0, "detector_mm": 430.0},
    "x2ct": {"sad": 541.0, "sdd": 949.0, "detector_mm": 500.0},
    "parallel": {"sad": 1600.0, "sdd": 1800.0, "detector_mm": 400.0, "parallel": True},
}
