"""Raylift lifts a few X-rays into a CT-like 3D volume. Not a medical device."""

from raylift._version import __version__

__all__ = ["__version__"]
