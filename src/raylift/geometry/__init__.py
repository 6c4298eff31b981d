"""Where source, detector and voxels are.

World coordinates are DICOM patient coordinates (LPS) in millimetres: +x is the patient's left, +y posterior,
+z superior. A view's angle θ turns the source from the patient's front (θ = 0°, AP) towards the patient's left
(θ = 90°). Detector columns run along u = (cos θ, sin θ, 0), rows downwards along v = (0, 0, -1), so row 0 is
superior and an AP image shows the patient's left on its right.
"""

from raylift.geometry.camera import PRESETS, Geometry
from raylift.geometry.grid import IDENTITY, MOST_VOXELS, Direction, VolumeGrid
from raylift.geometry.plausible import Point
from raylift.geometry.view import NAMED_VIEWS, View

__all__ = [
    "IDENTITY",
    "MOST_VOXELS",
    "NAMED_VIEWS",
    "PRESETS",
    "Direction",
    "Geometry",
    "Point",
    "View",
    "VolumeGrid",
]
