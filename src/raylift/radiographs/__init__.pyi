from .intake import read_radiographs as read_radiographs
from .out_of_distribution import OODDetector as OODDetector
from .radiograph import Radiograph as Radiograph
from .read import decode as decode
from .read import read_radiograph as read_radiograph
from .sets import read_xrays as read_xrays
from .sets import write_xrays as write_xrays
from .tone import Grey as Grey
from .tone import Orientation as Orientation

__all__ = [
    "Grey",
    "OODDetector",
    "Orientation",
    "Radiograph",
    "decode",
    "read_radiograph",
    "read_radiographs",
    "read_xrays",
    "write_xrays",
]
