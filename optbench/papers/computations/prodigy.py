"""Prodigy's states, and the estimate that it makes of its rate: Mishchenko and Defazio (2024), algorithm 4."""

import math
from collections.abc import Mapping
from typing import Any

import torch

from optbench.optim.build import build
from optbench.papers.computations.trace import Point, configured, steps_on_tape
from optbench.parity import record

NUM_STEPS = 20


def state_likeness(*, optimizer: str, changes: Mapping[str, Any], first: str, second: str) -> float:
    """The cosine of the angle between two states after 20 recorded steps: 1 for a state and its multiple."""
    *_, last = steps_on_tape(optimizer, changes, num_steps=NUM_STEPS)
    return float(torch.nn.functional.cosine_similarity(last.state(first), last.state(second), dim=0))


def estimate_difference(*, optimizer: str, changes: Mapping[str, Any], factor: float) -> float:
    """How far its d is from the paper's max(d, r / |s|_1) after 20 recorded steps, relative to it.

    Args:
        optimizer: in the catalogue; has d in its parameter group.
        changes: values other than its YAML gives.
        factor: of what each step adds to r and to s; the paper's is 1 - sqrt(beta2), and prodigyopt's 1.
    """
    start = record().params[1]
    point = Point(start)
    led = build(configured(optimizer, changes), point)
    (group,) = led.param_groups
    beta3 = math.sqrt(group["betas"][1])
    d, r, s = group["d"], 0.0, torch.zeros_like(start)
    for grads in record().grads[:NUM_STEPS]:
        grad = grads[1]
        r = beta3 * r + factor * d**2 * float((grad * (start - point.theta.detach())).sum())
        s = beta3 * s + factor * d**2 * grad
        d = max(d, r / float(s.abs().sum()))
        point.theta.grad = grad.clone()
        led.step()
    return float(abs(group["d"] / d - 1.0))
