"""X-ray images in, as line integrals of attenuation, hung for reading."""

from raylift.radiographs.radiograph import Radiograph
from raylift.radiographs.read import read_radiograph

__all__ = ["Radiograph", "read_radiograph"]
