"""Scores by named protocols, their intervals, calibration of the uncertainty, and reports."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
