"""The file with a job's decoded X-rays, in a format of our own, so that no upload is decoded twice."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors import safe_open
from safetensors.numpy import save_file

from raylift.geometry import Geometry, View
from raylift.images.tone_curve import ToneCurve
from raylift.images.xray_set import XraySet

XRAYS_FILE = "xrays.safetensors"


def save_xrays(xrays: XraySet, path: Path) -> None:
    """Write a set of X-rays: line integrals (N, rows, columns) with views, geometry, isocentre, notes and warnings."""
    header = {
        "views": [view.to_dict() for view in xrays.views],
        "geometry": xrays.geometry.to_dict(),
        "isocentre": xrays.isocentre,
        "notes": xrays.notes,
        "warnings": xrays.warnings,
        "tones": [tone and tone.to_dict() for tone in xrays.tones],
    }
    save_file({"images": xrays.images}, path, {"set": json.dumps(header)})


def load_xrays(path: Path) -> XraySet:
    """Read a set of X-rays that `save_xrays` wrote.

    A file that is gone raises OSError; a damaged one raises SafetensorError, KeyError or ValueError.

    Returns:
        Line integrals (N, rows, columns) with views, geometry, isocentre in mm, notes and warnings.
    """
    with safe_open(path, "numpy") as file:
        header = json.loads(file.metadata()["set"])
        views = tuple(View.from_dict(view) for view in header["views"])
        geometry, point = Geometry.from_dict(header["geometry"]), header["isocentre"]
        isocentre = (float(point[0]), float(point[1]), float(point[2])) if point else None
        notes, warnings = tuple(header["notes"]), tuple(header["warnings"])
        tones = tuple(tone and ToneCurve.from_dict(tone) for tone in header["tones"])
        return XraySet(file.get_tensor("images"), views, geometry, isocentre, notes, warnings, tones)
