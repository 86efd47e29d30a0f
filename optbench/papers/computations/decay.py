"""What a step takes away from a weight that has no gradient."""

import itertools
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from optbench.component import component
from optbench.optim.build import build
from optbench.papers.computations.trace import configured, moves


def decay_per_step(*, optimizer: str, changes: Mapping[str, Any]) -> float:
    """The part of a weight that the first step takes away."""
    zero, one = torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    return float(next(moves(optimizer, changes, grads=itertools.repeat(zero, 1), start=one)))


def decay_under_mup(
    *, optimizer: str, changes: Mapping[str, Any], width: int, base_width: int, compensate: bool
) -> float:
    """The part of a hidden matrix's weights that the first step takes away under `param_groups=mup`.

    Args:
        optimizer: in the catalogue.
        changes: values other than its YAML gives; the rate is that of the base width.
        width: of the hidden layers.
        base_width: that the rate is for.
        compensate: whether weight_decay rises with the width.
    """
    hidden = nn.Linear(width, width, bias=False)
    model = nn.Sequential(nn.Linear(2, width, bias=False), hidden, nn.Linear(width, 2, bias=False)).double()
    groups = {
        "name": "mup",
        "_target_": "optbench.optim.param_groups.mup",
        "base_width": base_width,
        "compensate_decay": compensate,
    }
    stepped = build(configured(optimizer, changes), model, param_groups=component(groups, group="param_groups"))
    for parameter in model.parameters():
        nn.init.ones_(parameter)
        parameter.grad = torch.zeros_like(parameter)
    stepped.step()
    return 1.0 - float(hidden.weight.detach().mean())
