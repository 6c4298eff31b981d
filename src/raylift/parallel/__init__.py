"""Work on many cases in processes of this machine or on a Ray cluster, and record each finished case."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
