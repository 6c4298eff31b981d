from .lift import Lift as Lift
from .registry import LIFTS as LIFTS
from .registry import build_lift as build_lift
from .view_harmonics import angular_weights as angular_weights
from .view_harmonics import harmonics as harmonics

__all__ = [
    "LIFTS",
    "Lift",
    "angular_weights",
    "build_lift",
    "harmonics",
]
