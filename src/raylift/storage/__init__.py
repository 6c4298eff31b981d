"""Files named by path or by URL: find and copy them, write them as a whole or not at all, read them with bounds."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
