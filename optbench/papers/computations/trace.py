"""An optimizer of the catalogue, led by gradients that are given to it."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from optbench.catalogue import entry, names
from optbench.component import OptimizerComponent, optimizer_component
from optbench.errors import UsageError, unknown
from optbench.optim.build import build
from optbench.parity import OfLibrary, record
from optbench.schedule import Schedule, constant

_OTHER = re.compile(r"\$\{optimizer\.(\w+)\}")  # a value that is that of another key


class Point(nn.Module):
    """One tensor of parameters, in float64."""

    def __init__(self, start: Tensor) -> None:
        super().__init__()
        self.theta = nn.Parameter(start.to(torch.float64, copy=True))


@dataclass(frozen=True, kw_only=True)
class Step:
    """What a step along the tape did, all parameters in one vector.

    Attributes:
        grad: that it was given.
        move: what it subtracted from the parameters.
        states: of the optimizer, by name; those that are as large as the parameters.
    """

    grad: Tensor
    move: Tensor
    states: Mapping[str, Tensor]

    def state(self, name: str) -> Tensor:
        """A state by its name.

        Raises:
            UsageError: the optimizer has none of that name that is as large as the parameters.
        """
        if name not in self.states:
            raise unknown("state", name, self.states)
        return self.states[name]


def configured(name: str, changes: Mapping[str, Any]) -> OptimizerComponent:
    """An optimizer of the catalogue, with other values than its YAML gives.

    Raises:
        UsageError: there is none of that name, or a value of it is only known once a whole config is composed.
    """
    found = entry("optimizer", name)
    if found is None:
        raise unknown("optimizer", name, names("optimizer"))
    config = {**found.config, **changes}
    for key, value in config.items():
        if isinstance(value, str) and "${" in value:
            other = _OTHER.fullmatch(value)
            if other is None or other.group(1) not in config:
                raise UsageError(f"optimizer={name}: {key} is {value} in its YAML; give a value among the changes.")
            config[key] = config[other.group(1)]
    return optimizer_component(config)


def on_tape(name: str, changes: Mapping[str, Any], *, schedule: Schedule | None = None) -> OfLibrary:
    """An optimizer to be led along a tape of gradients."""
    return OfLibrary(optimizer=configured(name, changes), schedule=schedule or constant(warmup=0.0))


def moves(name: str, changes: Mapping[str, Any], *, grads: Iterator[Tensor], start: Tensor) -> Iterator[Tensor]:
    """What each step subtracts from a tensor that is put back where it was, so that nothing is lost to rounding."""
    point = Point(start)
    optimizer = build(configured(name, changes), point)
    for grad in grads:
        with torch.no_grad():
            point.theta.copy_(start)
        point.theta.grad = grad.to(torch.float64, copy=True)
        optimizer.step()
        yield start - point.theta.detach()


def steps_on_tape(name: str, changes: Mapping[str, Any], *, num_steps: int) -> Iterator[Step]:
    """The first steps along the tape of `optbench.parity`."""
    tape = record()
    model = tape.model()
    params = list(model.parameters())
    optimizer = build(configured(name, changes), model)
    for grads in tape.grads[:num_steps]:
        before = _vector(params)
        for parameter, grad in zip(params, grads, strict=True):
            parameter.grad = grad.clone()
        optimizer.step()
        yield Step(
            grad=_vector(grads),
            move=before - _vector(params),
            states={
                key: torch.cat([optimizer.state[parameter][key].detach().flatten() for parameter in params])
                for key, value in optimizer.state[params[0]].items()
                if isinstance(value, Tensor) and value.numel() == params[0].numel()
            },
        )


def _vector(tensors: list[nn.Parameter] | tuple[Tensor, ...]) -> Tensor:
    return torch.cat([tensor.detach().flatten() for tensor in tensors])
