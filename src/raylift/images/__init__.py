"""Volumes and sets of X-rays with their geometry, and conversions of their values."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
