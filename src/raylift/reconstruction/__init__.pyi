from .iterative import cgls as cgls
from .iterative import sart_tv as sart_tv
from .outputs import write_results as write_results
from .reconstructor import Reconstruction as Reconstruction
from .reconstructor import Reconstructor as Reconstructor
from .refinement import Refinement as Refinement
from .refinement import refine as refine
from .reprojection import reproject as reproject

__all__ = [
    "Reconstruction",
    "Reconstructor",
    "Refinement",
    "cgls",
    "refine",
    "reproject",
    "sart_tv",
    "write_results",
]
