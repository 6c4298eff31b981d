from .montages import agreement as agreement
from .montages import gallery as gallery
from .montages import montage as montage
from .montages import uncertainty_planes as uncertainty_planes
from .pictures import Picture as Picture
from .pictures import planes as planes
from .pictures import projections as projections
from .pictures import xray_picture as xray_picture
from .sheets import SheetEntry as SheetEntry
from .sheets import contact_sheet as contact_sheet

__all__ = [
    "Picture",
    "SheetEntry",
    "agreement",
    "contact_sheet",
    "gallery",
    "montage",
    "planes",
    "projections",
    "uncertainty_planes",
    "xray_picture",
]
