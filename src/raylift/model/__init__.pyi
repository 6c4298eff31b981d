from .device import device_of as device_of
from .lifted_network import LiftedNetwork as LiftedNetwork
from .weights import Weights as Weights
from .weights import embedded_weights as embedded_weights
from .weights import export_weights as export_weights
from .weights import load_weights as load_weights
from .weights import save_weights as save_weights
from .weights_info import WeightsInfo as WeightsInfo

__all__ = [
    "LiftedNetwork",
    "Weights",
    "WeightsInfo",
    "device_of",
    "embedded_weights",
    "export_weights",
    "load_weights",
    "save_weights",
]
