"""X-ray images in, as line integrals of attenuation, oriented for reading."""

from raylift.radiographs.decode import decode, read_radiograph
from raylift.radiographs.radiograph import Radiograph
from raylift.radiographs.tone import Grey, Orientation

__all__ = ["Grey", "Orientation", "Radiograph", "decode", "read_radiograph"]
