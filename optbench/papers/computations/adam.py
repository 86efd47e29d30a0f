"""Adam's steps under a gradient that stays the same, where the bias correction and eps alone decide on them."""

import itertools
from collections.abc import Sequence
from functools import lru_cache

import torch

from optbench.papers.computations.trace import moves, on_tape
from optbench.parity import NUM_STEPS, compare, record
from optbench.schedule import inverse_sqrt


def step_length(*, optimizer: str, betas: Sequence[float], eps: float, gradient: float, t: int) -> float:
    """How far step t goes at rate 1, all gradients having been the same; Adam's with eps 0 goes by 1."""
    return lengths(optimizer, betas=tuple(betas), eps=eps, gradient=gradient, num_steps=t)[-1]


def step_ratio(*, optimizer: str, against: str, betas: Sequence[float], eps: float, gradient: float, t: int) -> float:
    """Step t of one optimizer over that of another."""
    return _ratios(optimizer, against, betas=tuple(betas), eps=eps, gradient=gradient, num_steps=t)[-1]


def longest_step_ratio(
    *, optimizer: str, against: str, betas: Sequence[float], eps: float, gradient: float, num_steps: int
) -> float:
    """The largest such ratio within so many steps."""
    return max(_ratios(optimizer, against, betas=tuple(betas), eps=eps, gradient=gradient, num_steps=num_steps))


def longest_step_ratio_at(
    *, optimizer: str, against: str, betas: Sequence[float], eps: float, gradient: float, num_steps: int
) -> float:
    """The step that has it."""
    ratios = _ratios(optimizer, against, betas=tuple(betas), eps=eps, gradient=gradient, num_steps=num_steps)
    return float(ratios.index(max(ratios)) + 1)


def step_ratio_below(
    *,
    optimizer: str,
    against: str,
    betas: Sequence[float],
    eps: float,
    gradient: float,
    num_steps: int,
    level: float,
) -> float:
    """The first step from which the ratio stays below a level; one more than `num_steps` where none does."""
    ratios = _ratios(optimizer, against, betas=tuple(betas), eps=eps, gradient=gradient, num_steps=num_steps)
    return float(max((t for t, ratio in enumerate(ratios, start=1) if ratio >= level), default=0) + 1)


def adagrad_difference(*, optimizer: str, against: str, beta2: float) -> float:
    """How far Adam with beta1 = 0, a beta2 near 1 and the rate lr / sqrt(t) parts from AdaGrad over 200 steps.

    Kingma and Ba (2015), section 5. The largest difference, relative to the way that AdaGrad has gone.
    """
    falling = inverse_sqrt(timescale=1.0 / NUM_STEPS, warmup=0.0)  # 1 / sqrt(t) at step t, counted from 1
    # eps keeps 0 / 0 away where a pixel, and with it a gradient, is always 0.
    adam = on_tape(optimizer, {"lr": 0.1, "betas": [0.0, beta2], "eps": 1e-30}, schedule=falling)
    adagrad = on_tape(against, {"lr": 0.1, "eps": 1e-30})
    return max(difference.relative for difference in compare(adagrad, adam, record()).differences)


@lru_cache(maxsize=64)
def lengths(
    optimizer: str, *, betas: tuple[float, ...], eps: float, gradient: float, num_steps: int
) -> tuple[float, ...]:
    """How far each step goes at rate 1 under a gradient that stays the same."""
    changes = {"lr": 1.0, "betas": list(betas), "eps": eps}
    grads = itertools.repeat(torch.tensor([gradient], dtype=torch.float64), num_steps)
    start = torch.zeros(1, dtype=torch.float64)
    return tuple(abs(float(move)) for move in moves(optimizer, changes, grads=grads, start=start))


def _ratios(
    optimizer: str, against: str, *, betas: tuple[float, ...], eps: float, gradient: float, num_steps: int
) -> list[float]:
    one, other = (
        lengths(name, betas=betas, eps=eps, gradient=gradient, num_steps=num_steps) for name in (optimizer, against)
    )
    return [a / b for a, b in zip(one, other, strict=True)]
