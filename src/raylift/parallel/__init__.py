"""Many cases at once: in processes of this machine, or on a Ray cluster, each recorded when it is done."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
