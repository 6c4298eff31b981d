"""Parameters of the named geometries. Imports nothing heavy, so that commands can list their choices at once."""

from __future__ import annotations

from typing import Any

# What the detector of a chest stand sees of a patient, in mm along (z, y, x).
CHEST_FIELD_MM = (440.0, 400.0, 480.0)

# Arguments of `Geometry`, all but its pixels.
PRESET_PARAMETERS: dict[str, dict[str, Any]] = {
    "chest-stand": {"sad": 1600.0, "sdd": 1800.0, "detector_mm": 430.0},
    "x2ct": {"sad": 541.0, "sdd": 949.0, "detector_mm": 500.0},
    "parallel": {"sad": 1600.0, "sdd": 1800.0, "detector_mm": 400.0, "parallel": True},
}
