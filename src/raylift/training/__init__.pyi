from .run import Diverged as Diverged
from .run import Run as Run
from .run import train as train

__all__ = [
    "Diverged",
    "Run",
    "train",
]
