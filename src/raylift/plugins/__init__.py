"""Registries of the names that recipes, commands and files may use, extensible by other packages."""

from raylift.plugins.registry import Registry, load

__all__ = ["Registry", "load"]
