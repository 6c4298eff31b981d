"""Where PyTorch computes."""

from __future__ import annotations

import torch

from raylift.errors import WrongUsage


def device_of(name: torch.device | str | None = None) -> torch.device:
    """The named device; the first GPU, or else the CPU, by default. Raises WrongUsage if it does not compute here."""
    if name is None:
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).cpu()
    except (RuntimeError, AssertionError, ImportError) as error:  # as PyTorch answers to a device that is not there
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise WrongUsage(f"device '{name}': PyTorch cannot use it here ({reason})") from None
    return device
