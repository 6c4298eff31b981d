"""X-ray images in, as line integrals of attenuation, hung for reading."""

from raylift.radiographs.grey import Grey, Hanging
from raylift.radiographs.radiograph import Radiograph
from raylift.radiographs.read import decode, read_radiograph

__all__ = ["Grey", "Hanging", "Radiograph", "decode", "read_radiograph"]
