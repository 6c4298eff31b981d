"""The device on which PyTorch computes."""

from __future__ import annotations

import torch

from raylift.errors import WrongUsage


def device_of(name: torch.device | str | None = None) -> torch.device:
    """Return the named device; by default the first GPU, or else the CPU.

    Raises:
        WrongUsage: PyTorch cannot compute on it here.
    """
    if name is None:
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).cpu()
    except (RuntimeError, AssertionError, ImportError) as error:  # what PyTorch raises for a missing device
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise WrongUsage(f"device '{name}': PyTorch cannot use it here ({reason})") from None
    return device
