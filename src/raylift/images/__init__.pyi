from .hounsfield import WATER_MU as WATER_MU
from .hounsfield import WINDOW as WINDOW
from .hounsfield import hu_to_mu as hu_to_mu
from .hounsfield import hu_to_normalised as hu_to_normalised
from .hounsfield import normalised_to_hu as normalised_to_hu
from .hounsfield import normalised_to_mu as normalised_to_mu
from .volume import Volume as Volume
from .xray_set import XraySet as XraySet

__all__ = [
    "WATER_MU",
    "WINDOW",
    "Volume",
    "XraySet",
    "hu_to_mu",
    "hu_to_normalised",
    "normalised_to_hu",
    "normalised_to_mu",
]
