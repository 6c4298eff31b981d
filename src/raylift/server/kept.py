"""A job's X-rays as they were understood, in one file of ours: nothing that a stranger sent is decoded twice."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors import safe_open
from safetensors.numpy import save_file

from raylift.geometry import Geometry, View
from raylift.images.xray_set import XraySet

NAME = "xrays.safetensors"


def keep(xrays: XraySet, path: Path) -> None:
    """Write a set of X-rays: line integrals (N, rows, columns) with views, geometry, isocentre and notes."""
    told = {
        "views": [view.to_dict() for view in xrays.views],
        "geometry": xrays.geometry.to_dict(),
        "isocentre": xrays.isocentre,
        "notes": xrays.notes,
    }
    save_file({"images": xrays.images}, path, {"set": json.dumps(told)})


def kept(path: Path) -> XraySet:
    """Read what `keep` wrote.

    Raises:
        OSError: the file is gone.
        SafetensorError, KeyError, ValueError: it is damaged.
    """
    with safe_open(path, "numpy") as file:
        told = json.loads(file.metadata()["set"])
        views = tuple(View.from_dict(view) for view in told["views"])
        geometry, point = Geometry.from_dict(told["geometry"]), told["isocentre"]
        isocentre = (float(point[0]), float(point[1]), float(point[2])) if point else None
        return XraySet(file.get_tensor("images"), views, geometry, isocentre, tuple(told["notes"]))
