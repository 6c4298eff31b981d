"""Names that recipes, commands and files may say, and what they stand for, in Raylift and in other packages."""

from raylift.plugins.registry import Registry, load

__all__ = ["Registry", "load"]
