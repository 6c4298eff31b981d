"""Raylift lifts a few X-rays into a CT-like 3D volume. Not a medical device."""

import lazy_loader

from raylift.about import __version__ as __version__

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
