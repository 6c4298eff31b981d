"""Parallel processing of a batch, one volume per thread: on a CPU this is faster than all threads on each volume."""

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
    """A wrapper that runs a network on each volume of a batch in a thread of its own, on as many as PyTorch may use.

    The output is the network's own. The gradients of parameters are added in the order of the volumes, so that the
    same batch always gives the same numbers. On other devices than a CPU, and for networks with batch normalisation or
    dropout, the network receives the whole batch.

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
        """Return the network's output for volumes (B, ...)."""
        threads = min(torch.get_num_threads(), len(volumes))
        if not self.separable or volumes.device.type != "cpu" or threads == 1:
            return self.network(volumes)
        parameters = [p for p in self.network.parameters() if p.requires_grad]
        out = _PerSampleParallel.apply(self.network, threads, torch.is_grad_enabled(), volumes, *parameters)
        return out if len(out) > 1 else out[0]


class _PerSampleParallel(torch.autograd.Function):
    """A network's graph for each volume, built and differentiated in a thread."""

    @staticmethod
    def forward(
        ctx: Any, network: nn.Module, threads: int, learning: bool, volumes: Tensor, *parameters: Tensor
    ) -> tuple[Tensor, ...]:
        mixed, dtype = torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu")
        volumes_need_grad = ctx.needs_input_grad[3]

        def run(volume: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
            leaf = volume.detach().requires_grad_(volumes_need_grad)
            # Autocast's cache belongs to the process: a thread that leaves autocast would clear it while another one
            # uses it, whose sums of gradients would then be rounded differently.
            with torch.set_grad_enabled(learning), torch.autocast("cpu", dtype, enabled=mixed, cache_enabled=False):
                output = network(leaf)
            return leaf, output if isinstance(output, tuple) else (output,)

        ctx.threads, ctx.volumes_need_grad = threads, volumes_need_grad
        ctx.graphs = _each(threads, run, [(volume,) for volume in volumes.split(1)])
        ctx.parameters = parameters
        results = zip(*(outputs for _, outputs in ctx.graphs), strict=True)
        return tuple(torch.cat([part.detach() for part in parts]) for parts in results)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        def run(leaf: Tensor, outputs: tuple[Tensor, ...], *parts: Tensor) -> tuple[Tensor | None, ...]:
            inputs = [leaf, *ctx.parameters] if ctx.volumes_need_grad else list(ctx.parameters)
            return torch.autograd.grad(outputs, inputs, parts, allow_unused=True)

        parts = zip(*(gradient.split(1) for gradient in gradients), strict=True)
        tasks = [(leaf, outputs, *part) for (leaf, outputs), part in zip(ctx.graphs, parts, strict=True)]
        per_volume = _each(ctx.threads, run, tasks)
        ctx.graphs = None
        grad_volumes = torch.cat([grads[0] for grads in per_volume]) if ctx.volumes_need_grad else None
        grad_parameters = zip(*(grads[1:] if ctx.volumes_need_grad else grads for grads in per_volume), strict=True)
        return None, None, None, grad_volumes, *(_sum(grads) for grads in grad_parameters)


def _sum(gradients: Sequence[Tensor | None]) -> Tensor | None:
    """Return the sum of the gradients that are not None, in their order; None if all are."""
    present = [gradient for gradient in gradients if gradient is not None]
    if not present:
        return None
    total = present[0]
    for gradient in present[1:]:
        total = total + gradient
    return total


def _each(threads: int, work: Callable[..., Any], tasks: Sequence[tuple[Any, ...]]) -> list[Any]:
    """Return the results of `work(*task)` for each task, in their order, computed by several threads."""
    all_threads = torch.get_num_threads()

    def run(task: tuple[Any, ...]) -> Any:
        torch.set_num_threads(max(1, all_threads // threads))
        return work(*task)

    try:
        return list(_pool(threads).map(run, tasks))
    finally:
        torch.set_num_threads(all_threads)  # the last number set by any thread would apply to new threads


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, "raylift")
