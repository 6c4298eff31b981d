from .features import FeatureExtractor as FeatureExtractor
from .potential import CompactPotential as CompactPotential
from .potential import PaperPotential as PaperPotential
from .registry import NETWORKS as NETWORKS
from .registry import available as available
from .registry import build as build
from .swin_unetr import SwinUNETR as SwinUNETR

__all__ = [
    "NETWORKS",
    "CompactPotential",
    "FeatureExtractor",
    "PaperPotential",
    "SwinUNETR",
    "available",
    "build",
]
