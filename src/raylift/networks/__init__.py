"""The mapping networks by name, the potential d and the feature extractor f."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
