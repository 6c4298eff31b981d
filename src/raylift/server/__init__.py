"""Reconstructions over HTTP: jobs that survive a restart, workers that may die, and a page to look at them."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
