"""Descent on a quadratic of two coordinates, the steepest and the flattest."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from optbench.optim.build import build
from optbench.papers.computations.trace import Point, configured


def sign_changes(
    *, optimizer: str, changes: Mapping[str, Any], curvatures: Sequence[float], axis: int, num_steps: int
) -> float:
    """In how many of so many steps a coordinate changes its sign, all of them starting at 1.

    Args:
        optimizer: in the catalogue.
        changes: values other than its YAML gives.
        curvatures: of the loss, for each coordinate.
        axis: which coordinate.
        num_steps: from the start.
    """
    scales = torch.tensor(curvatures, dtype=torch.float64)
    point = Point(torch.ones_like(scales))
    led = build(configured(optimizer, changes), point)
    values = [1.0]
    for _ in range(num_steps):
        point.theta.grad = scales * point.theta.detach()
        led.step()
        values.append(float(point.theta.detach()[axis]))
    return float(sum(before * after < 0 for before, after in itertools.pairwise(values)))
