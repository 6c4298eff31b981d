"""Files by path or by URL: found, copied, written as a whole or not at all, and read with bounds."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
