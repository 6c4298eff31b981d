"""Each table and figure of the paper as a function: rows trained under one budget, scored alike, set side by side."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
