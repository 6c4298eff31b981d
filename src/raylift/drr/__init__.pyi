from .operator import ProjectionOperator as ProjectionOperator
from .registry import PROJECTORS as PROJECTORS
from .registry import ScanProjector as ScanProjector
from .registry import load_projector as load_projector

__all__ = [
    "PROJECTORS",
    "ProjectionOperator",
    "ScanProjector",
    "load_projector",
]
