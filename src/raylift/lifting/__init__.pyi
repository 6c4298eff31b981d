from .harmonics import angular_weights as angular_weights
from .harmonics import harmonics as harmonics
from .lift import Lift as Lift
from .registry import LIFTS as LIFTS
from .registry import build_lift as build_lift

__all__ = [
    "LIFTS",
    "Lift",
    "angular_weights",
    "build_lift",
    "harmonics",
]
