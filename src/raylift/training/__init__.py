"""Training runs: the loop, its checkpoints, and what is written of it."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
