from .compiled import applies as applies
from .compiled import in_parts as in_parts
from .compiled import loop as loop
from .interpolation import interpolate as interpolate

__all__ = [
    "applies",
    "in_parts",
    "interpolate",
    "loop",
]
