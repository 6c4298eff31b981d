"""The training objectives: the paper's neural optimal transport, the paired objective, and those of other methods."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
