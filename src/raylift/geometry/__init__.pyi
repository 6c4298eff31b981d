from .camera import Beam as Beam
from .camera import Camera as Camera
from .camera import common_point as common_point
from .geometry import PRESETS as PRESETS
from .geometry import Geometry as Geometry
from .grid import IDENTITY as IDENTITY
from .grid import MOST_VOXELS as MOST_VOXELS
from .grid import Direction as Direction
from .grid import VolumeGrid as VolumeGrid
from .plausible import Point as Point
from .view import NAMED_VIEWS as NAMED_VIEWS
from .view import View as View

__all__ = [
    "IDENTITY",
    "MOST_VOXELS",
    "NAMED_VIEWS",
    "PRESETS",
    "Beam",
    "Camera",
    "Direction",
    "Geometry",
    "Point",
    "View",
    "VolumeGrid",
    "common_point",
]
