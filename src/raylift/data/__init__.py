"""Training data: public collections, prepared datasets, pairs, augmentation and the phantom."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
