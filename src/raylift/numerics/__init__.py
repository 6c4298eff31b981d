"""Compiled loops, trilinear interpolation and bfloat16: what computes, and knows nothing of X-rays."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
