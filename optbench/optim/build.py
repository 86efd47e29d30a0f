"""From an optimizer's config to a `torch.optim.Optimizer` that holds every trainable parameter."""

from collections.abc import Iterable

import torch
from torch import nn

from optbench.components import build as build_component
from optbench.components import signature
from optbench.errors import UsageError
from optbench.trial import Component


def build(component: Component, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """The optimizer with its hyperparameters bound, over all the trainable parameters given.

    Raises:
        UsageError: the class is no optimizer, does not accept a hyperparameter or refuses its value, or leaves
            a trainable parameter out.
    """
    trainable = [parameter for parameter in parameters if parameter.requires_grad]
    # The first parameter of every torch optimizer is the parameters; most call it `params`.
    first = next(iter(signature(component, group="optimizer")), "params")
    try:
        optimizer = build_component(component, group="optimizer", **{first: trainable})
    except UsageError:
        raise
    except (Exception, SystemExit) as error:  # some libraries leave with exit() where a package of theirs is missing
        given = ", ".join(f"{key}={value}" for key, value in component.arguments.items())
        reason = f": {error}" if str(error) else ""
        raise UsageError(f"{component.name} ({component.target}) refuses {given}{reason}.") from error
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise UsageError(f"optimizer {component.name!r}: {component.target} is not a torch.optim.Optimizer.")
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    left_out = sum(id(parameter) not in held for parameter in trainable)
    if left_out:
        raise UsageError(f"{component.name} leaves out {left_out} of {len(trainable)} trainable parameters.")
    return optimizer


def check(component: Component) -> None:
    """Build the optimizer over a small matrix, so that a mistake shows before anything trains.

    Raises:
        UsageError: as `build`.
    """
    build(component, [nn.Parameter(torch.zeros(2, 2))])
