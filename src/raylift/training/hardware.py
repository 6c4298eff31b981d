"""What a training asks of the machine: number format, processes, memory."""

import os
import sys
from typing import Any, Literal

import torch

Precision = Literal["32-true", "bf16-mixed"]


def supported_precision(precision: Precision) -> Precision:
    """Return a recipe's precision, or float32 where bfloat16 would be emulated.

    x86 processors without instructions for it take a hundred times as long over a convolution (PyTorch 2.13).
    """
    if torch.cuda.is_available():
        return precision
    processor: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # PyTorch 2.10 and later
    emulated = processor.get("architecture") == "x86_64" and not (
        processor.get("avx512_bf16") or processor.get("amx_bf16")
    )
    return "32-true" if emulated else precision


def processes() -> tuple[int, int]:
    """Return the number of processes on each machine, and of machines: as torchrun or srun say, by default one."""
    environment = os.environ
    if "LOCAL_WORLD_SIZE" in environment:
        return int(environment["LOCAL_WORLD_SIZE"]), int(environment.get("GROUP_WORLD_SIZE", "1"))
    nodes = int(environment.get("SLURM_STEP_NUM_NODES", "1"))
    return int(environment.get("SLURM_STEP_NUM_TASKS", "1")) // nodes, nodes


def peak_memory(device: torch.device) -> int | None:
    """Return the most memory in bytes that this process has held: on the GPU if that is the device, else resident.

    None on Windows, whose processes do not keep this number where Python could read it.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:
        return None
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kilobytes if sys.platform == "darwin" else 1024 * kilobytes
