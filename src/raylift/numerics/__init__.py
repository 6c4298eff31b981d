"""General numerical code, independent of X-rays: compiled loops, trilinear interpolation and bfloat16."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
