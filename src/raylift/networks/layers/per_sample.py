"""The volumes of a batch each on a core of its own: on a CPU, two threads on two volumes do more than two on one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd


class PerSampleParallel(nn.Module):
    """A network that treats the volumes of a batch apart, with a thread for each as far as PyTorch may use them.

    What comes out is the network's own; gradients of parameters are added in the order of the volumes, so that the
    same batch gives the same numbers. Elsewhere than on a CPU, and for networks with batch normalisation or dropout,
    the batch goes through as it is.

    Args:
        network: (B, ...) → (B, ...).
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.separable = not any(
            isinstance(module, _BatchNorm) or (isinstance(module, _DropoutNd) and module.p > 0)
            for module in network.modules()
        )

    def forward(self, volumes: Tensor) -> Any:
        """As the network."""
        threads = min(torch.get_num_threads(), len(volumes))
        if not self.separable or volumes.device.type != "cpu" or threads == 1:
            return self.network(volumes)
        parameters = [p for p in self.network.parameters() if p.requires_grad]
        out = _PerSampleParallel.apply(self.network, threads, torch.is_grad_enabled(), volumes, *parameters)
        return out if len(out) > 1 else out[0]


class _PerSampleParallel(torch.autograd.Function):
    """A network's graph for each volume, built and walked back by a thread."""

    @staticmethod
    def forward(
        ctx: Any, network: nn.Module, threads: int, learning: bool, volumes: Tensor, *parameters: Tensor
    ) -> tuple[Tensor, ...]:
        mixed, kind = torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu")
        wanted = ctx.needs_input_grad[3]

        def run(volume: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
            given = volume.detach().requires_grad_(wanted)
            # The cache of casts is the process's: a thread that leaves would clear it under another, whose sums of
            # gradients would then be rounded elsewhere.
            with torch.set_grad_enabled(learning), torch.autocast("cpu", kind, enabled=mixed, cache_enabled=False):
                made = network(given)
            return given, made if isinstance(made, tuple) else (made,)

        ctx.threads, ctx.wanted = threads, wanted
        ctx.graphs = _each(threads, run, [(volume,) for volume in volumes.split(1)])
        ctx.parameters = parameters
        results = zip(*(made for _, made in ctx.graphs), strict=True)
        return tuple(torch.cat([part.detach() for part in parts]) for parts in results)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor | None, ...]:
        def run(given: Tensor, made: tuple[Tensor, ...], *parts: Tensor) -> tuple[Tensor | None, ...]:
            inputs = [given, *ctx.parameters] if ctx.wanted else list(ctx.parameters)
            return torch.autograd.grad(made, inputs, parts, allow_unused=True)

        parts = zip(*(slope.split(1) for slope in slopes), strict=True)
        tasks = [(given, made, *part) for (given, made), part in zip(ctx.graphs, parts, strict=True)]
        found = _each(ctx.threads, run, tasks)
        ctx.graphs = None
        of_volumes = torch.cat([one[0] for one in found]) if ctx.wanted else None
        of_parameters = zip(*(one[1:] if ctx.wanted else one for one in found), strict=True)
        return None, None, None, of_volumes, *(_sum(gradients) for gradients in of_parameters)


def _sum(gradients: Sequence[Tensor | None]) -> Tensor | None:
    known = [gradient for gradient in gradients if gradient is not None]
    if not known:
        return None
    total = known[0]
    for gradient in known[1:]:
        total = total + gradient
    return total


def _each(threads: int, work: Callable[..., Any], tasks: Sequence[tuple[Any, ...]]) -> list[Any]:
    """What some work makes of each task, in their order."""
    every = torch.get_num_threads()

    def alone(task: tuple[Any, ...]) -> Any:
        torch.set_num_threads(max(1, every // threads))
        return work(*task)

    try:
        return list(_pool(threads).map(alone, tasks))
    finally:
        torch.set_num_threads(every)  # a thread's number becomes that of threads to come


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, "raylift")
