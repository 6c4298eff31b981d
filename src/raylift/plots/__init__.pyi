from .contact_sheet import SheetEntry as SheetEntry
from .contact_sheet import contact_sheet as contact_sheet
from .montage import agreement as agreement
from .montage import gallery as gallery
from .montage import montage as montage
from .montage import uncertainty_planes as uncertainty_planes
from .pictures import Picture as Picture
from .pictures import planes as planes
from .pictures import projections as projections
from .pictures import xray_picture as xray_picture

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
