from .dataset import PreparedDataset as PreparedDataset
from .pairs import Batch as Batch
from .pairs import OfflinePairs as OfflinePairs
from .pairs import OnlinePairs as OnlinePairs
from .phantom import thorax_phantom as thorax_phantom
from .preparation import PreparationSettings as PreparationSettings
from .preparation import prepare as prepare
from .thorax import find_thorax as find_thorax

__all__ = [
    "Batch",
    "OfflinePairs",
    "OnlinePairs",
    "PreparationSettings",
    "PreparedDataset",
    "find_thorax",
    "prepare",
    "thorax_phantom",
]
