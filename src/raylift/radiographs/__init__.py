"""X-ray images of every kind, read as line integrals of attenuation and oriented for reading."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
