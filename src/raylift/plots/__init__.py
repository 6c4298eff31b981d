"""Pictures of volumes and X-rays, always upright and with the patient's sides marked."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
