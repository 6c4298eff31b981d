"""The learning rate over a training: a linear rise, a plateau, and a fall."""

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from raylift.config.recipe import TrainConfig


def rate_factor(step: int, train: TrainConfig) -> float:
    """Return the factor of the learning rate at a step: a rise that is never 0, a plateau of 1, a fall towards 0."""
    if step < train.warmup:
        return (step + 1) / (train.warmup + 1)
    done = (step - train.decay_from) / max(1, train.steps - train.decay_from)
    if done <= 0:
        return 1.0
    return 1 - done if train.decay == "linear" else 0.5 * (1 + math.cos(math.pi * done))


def schedule(optimizer: Optimizer, train: TrainConfig, step: int) -> LambdaLR:
    """Return a scheduler that has set an optimizer's learning rate for a step, and sets it for the next when stepped.

    The rate is a function of the step alone, so that nothing of a scheduler has to be kept in checkpoints.
    """
    for group in optimizer.param_groups:
        group.setdefault("initial_lr", group["lr"])
    return LambdaLR(optimizer, lambda k: rate_factor(k, train), last_epoch=step - 1)
