"""Which way steps go: against their gradient, against an average of them, or neither."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from optbench.papers.computations.trace import Step, moves, steps_on_tape

NUM_STEPS = 50


def last_move(*, optimizer: str, changes: Mapping[str, Any], gradients: Sequence[float]) -> float:
    """Where the last of these gradients sends a parameter, at rate 1."""
    grads = [torch.tensor([grad], dtype=torch.float64) for grad in gradients]
    start = torch.zeros(1, dtype=torch.float64)
    *_, last = moves(optimizer, {"lr": 1.0, **changes}, grads=iter(grads), start=start)
    return -float(last)


def moves_against_gradient(*, optimizer: str, changes: Mapping[str, Any]) -> float:
    """The share of entries that move against their gradient, of those that move, over 50 recorded steps."""
    return _share(optimizer, changes, lambda step: step.grad)


def moves_against_state(*, optimizer: str, changes: Mapping[str, Any], state: str) -> float:
    """The share of entries that move against a state of the optimizer, as it is after the step."""
    return _share(optimizer, changes, lambda step: step.state(state))


def _share(optimizer: str, changes: Mapping[str, Any], led_by: Callable[[Step], Tensor]) -> float:
    same = moved = 0
    for step in steps_on_tape(optimizer, changes, num_steps=NUM_STEPS):
        signs = step.move.sign()
        moved += int((signs != 0).sum())
        same += int((signs * led_by(step).sign() > 0).sum())
    return same / moved
