from .about import __version__ as __version__
from .data.dataset import PreparedDataset as PreparedDataset
from .drr.operator import ProjectionOperator as ProjectionOperator
from .geometry import Geometry as Geometry
from .geometry import View as View
from .geometry import VolumeGrid as VolumeGrid
from .images.volume import Volume as Volume
from .images.xray_set import XraySet as XraySet
from .io.volumes import read_volume as read_volume
from .io.volumes import write_volume as write_volume
from .radiographs.sets import read_xrays as read_xrays
from .radiographs.sets import write_xrays as write_xrays
from .reconstruction.reconstructor import Reconstruction as Reconstruction
from .reconstruction.reconstructor import Reconstructor as Reconstructor

__all__ = [
    "Geometry",
    "PreparedDataset",
    "ProjectionOperator",
    "Reconstruction",
    "Reconstructor",
    "View",
    "Volume",
    "VolumeGrid",
    "XraySet",
    "__version__",
    "read_volume",
    "read_xrays",
    "write_volume",
    "write_xrays",
]
