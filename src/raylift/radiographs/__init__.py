"""X-ray images in, as line integrals of attenuation, hung for reading."""

from raylift.radiographs.decode import decode, read_radiograph
from raylift.radiographs.radiograph import Radiograph
from raylift.radiographs.tone import Grey, Hanging

__all__ = ["Grey", "Hanging", "Radiograph", "decode", "read_radiograph"]
