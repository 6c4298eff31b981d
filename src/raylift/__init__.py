"""Raylift lifts a few X-rays into a CT-like 3D volume. Not a medical device."""

from typing import TYPE_CHECKING, Any

from raylift.about import __version__

if TYPE_CHECKING:
    from raylift.reconstruction.reconstructor import Reconstructor

__all__ = ["Reconstructor", "__version__"]


def __getattr__(name: str) -> Any:
    # PyTorch takes seconds to import: only when it is needed.
    if name == "Reconstructor":
        from raylift.reconstruction.reconstructor import Reconstructor

        return Reconstructor
    raise AttributeError(f"module 'raylift' has no attribute '{name}'")
