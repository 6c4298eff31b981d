"""X-ray images of any kind in, as line integrals of attenuation, oriented for reading."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
