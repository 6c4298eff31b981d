from .volumes import read_volume as read_volume
from .volumes import write_volume as write_volume

__all__ = [
    "read_volume",
    "write_volume",
]
