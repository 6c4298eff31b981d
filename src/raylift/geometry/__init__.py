"""The positions of the X-ray source, the detector and the voxels.

World coordinates are DICOM patient coordinates (LPS) in millimetres: +x is the patient's left, +y posterior,
+z superior. A view's angle θ turns the source from the patient's front (θ = 0°, AP) towards the patient's left
(θ = 90°). Detector columns run along u = (cos θ, sin θ, 0), rows downwards along v = (0, 0, -1), so row 0 is
superior and an AP image shows the patient's left on its right.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
