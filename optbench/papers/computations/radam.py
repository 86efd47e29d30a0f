"""RAdam's rectifier, and the variance that it takes away: Liu et al. (2020), section 4."""

import math
from functools import lru_cache

import torch

from optbench.papers.computations.adam import lengths
from optbench.papers.computations.trace import moves


def rectifier(*, optimizer: str, beta2: float, t: int) -> float:
    """The length of step t at rate 1, all gradients having been 1; Adam's is 1."""
    return _rectifiers(optimizer, beta2, t)[-1]


def rectifier_reaches(*, optimizer: str, beta2: float, level: float, num_steps: int) -> float:
    """The first rectified step whose rectifier has reached a level; infinite where none of so many has."""
    found = enumerate(_rectifiers(optimizer, beta2, num_steps), start=1)
    return next((float(t) for t, length in found if length >= level and not math.isclose(length, 1.0)), math.inf)


def rectified_from(*, optimizer: str, beta2: float, num_steps: int) -> float:
    """The first step that is rectified, the ones before being as long as their gradient; infinite where none is."""
    found = enumerate(_rectifiers(optimizer, beta2, num_steps), start=1)
    return next((float(t) for t, length in found if not math.isclose(length, 1.0)), math.inf)


def rate_variance(*, optimizer: str, beta2: float, t: int, num_paths: int) -> float:
    """The variance of the rate of step t, over paths of gradients from N(0, 1), at rate 1 and without momentum.

    As in the simulations of Liu et al. (2020), section 5.3. The rate is the step over its gradient.
    """
    return _variances(optimizer, beta2, num_paths)[t - 1]


def rate_variance_ratio(*, optimizer: str, beta2: float, t: int, later: int, num_paths: int) -> float:
    """The same, of step t over a later one."""
    variances = _variances(optimizer, beta2, num_paths)
    return variances[t - 1] / variances[later - 1]


def _rectifiers(optimizer: str, beta2: float, num_steps: int) -> tuple[float, ...]:
    return lengths(optimizer, betas=(0.9, beta2), eps=0.0, gradient=1.0, num_steps=num_steps)


@lru_cache(maxsize=8)
def _variances(optimizer: str, beta2: float, num_paths: int) -> tuple[float, ...]:
    """By step, for a thousand of them."""
    draw = torch.Generator().manual_seed(0)
    grads = [torch.randn(num_paths, generator=draw, dtype=torch.float64) for _ in range(1000)]
    changes = {"lr": 1.0, "betas": [0.0, beta2], "eps": 0.0}
    start = torch.zeros(num_paths, dtype=torch.float64)
    path = moves(optimizer, changes, grads=iter(grads), start=start)
    return tuple(float((move / grad).var()) for grad, move in zip(grads, path, strict=True))
