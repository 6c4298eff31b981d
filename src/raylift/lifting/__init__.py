"""Lifting views to the channels of a volume: the paper's repetition, its variants, and back-projection."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
