"""Mapping networks behind a registry, the potential and the feature extractor."""

from raylift.networks.registry import available, build

__all__ = ["available", "build"]
