"""Volumes and sets of X-rays, with the geometry that places them, and what their values mean."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
