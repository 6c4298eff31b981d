from .run import Run as Run
from .run import train as train

__all__ = [
    "Run",
    "train",
]
