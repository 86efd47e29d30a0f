"""Adafactor's steps: their size, and the arguments that it refuses together."""

import itertools
from collections.abc import Mapping
from typing import Any

import torch

from optbench.errors import UsageError
from optbench.optim.build import check
from optbench.papers.computations.trace import configured, moves


def step_growth(*, optimizer: str, changes: Mapping[str, Any], size: float, reference: float) -> float:
    """The first step of weights of one size over that of weights of another, for the same gradient."""
    grad = torch.randn(10, 10, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    steps = [
        next(moves(optimizer, changes, grads=itertools.repeat(grad, 1), start=torch.full_like(grad, value)))
        for value in (size, reference)
    ]
    one, other = (float(step.square().mean().sqrt()) for step in steps)
    return one / other


def refuses(*, optimizer: str, changes: Mapping[str, Any]) -> float:
    """1 where an optimizer is built as its YAML has it, and refuses these changes; 0 where it takes them."""
    check(configured(optimizer, {}))
    try:
        check(configured(optimizer, changes))
    except UsageError:
        return 1.0
    return 0.0
