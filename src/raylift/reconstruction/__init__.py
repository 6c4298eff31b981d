"""X-rays to a volume: by the network, by refinement, and by iterative methods."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
