"""Write volumes and X-rays as DICOM, marked as computed and, unless the user wants otherwise, without an identity."""

from raylift.io.dicom.ct import write_ct
from raylift.io.dicom.dx import LINE_INTEGRALS, digital_xray, view_at
from raylift.io.dicom.study import Study, new_uid

__all__ = ["LINE_INTEGRALS", "Study", "digital_xray", "new_uid", "view_at", "write_ct"]
