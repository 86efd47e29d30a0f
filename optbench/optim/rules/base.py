"""What a rule is: a pure function from hyperparameters, state, parameters and gradients to parameters and state."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch
from torch import Tensor

Scalar: TypeAlias = float | Tensor  # a tensor without dimensions where hyperparameters are batched
Betas: TypeAlias = tuple[Scalar, Scalar]
State: TypeAlias = Mapping[str, Any]  # nested mappings and tuples of tensors; empty before the first step
Tensors: TypeAlias = tuple[Tensor, ...]


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One step of an optimizer, as mathematics.

    Nothing is changed in place, no decision depends on the value of a tensor, and the step is counted in a tensor, so
    that `torch.func.vmap` batches a step over numeric hyperparameters. Those that decide the form of the update
    (`nesterov`, `amsgrad`, a `beta1` that is None) are plain Python values.

    Attributes:
        name: what `rule:` in an optimizer's YAML gives.
        hyperparameters: the names that it reads, which are those of the libraries; others are passed over, so that all
            arguments of an optimizer can be handed over. `lr` is the rate of this step, `initial_lr` the peak rate.
        required: those without a default.
    """

    name: str
    hyperparameters: frozenset[str]
    required: frozenset[str]
    update: Callable[..., tuple[Tensors, State]] = field(repr=False)

    def __call__(
        self, hyperparameters: Mapping[str, Any], state: State, params: Sequence[Tensor], grads: Sequence[Tensor]
    ) -> tuple[Tensors, State]:
        """The parameters and the state after one step."""
        read = {name: value for name, value in hyperparameters.items() if name in self.hyperparameters}
        return self.update(state, tuple(params), tuple(grads), **read)


def over_all(update: Callable[..., tuple[Tensors, State]]) -> Rule:
    """A rule that sees all tensors at once; its hyperparameters are the function's keyword arguments."""
    return _rule(update, of=update)


def per_tensor(update: Callable[..., tuple[Tensor, State]]) -> Rule:
    """A rule that treats each tensor by itself, from the update of one."""

    def lifted(state: State, params: Tensors, grads: Tensors, **hyperparameters: Any) -> tuple[Tensors, State]:
        states = state["tensors"] if state else ({},) * len(params)
        updated = [update(*one, **hyperparameters) for one in zip(states, params, grads, strict=True)]
        # A parameter without dimensions would become as precise as the step counter.
        moved = tuple(new.to(old.dtype) for (new, _), old in zip(updated, params, strict=True))
        return moved, {"tensors": tuple(new for _, new in updated)}

    return _rule(lifted, of=update)


def _rule(update: Callable[..., tuple[Tensors, State]], *, of: Callable[..., Any]) -> Rule:
    read = {
        name: parameter.default is parameter.empty
        for name, parameter in inspect.signature(of).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY
    }
    required = frozenset(name for name, has_no_default in read.items() if has_no_default)
    return Rule(name=of.__name__, hyperparameters=frozenset(read), required=required, update=update)


def next_step(state: State, param: Tensor) -> Tensor:
    """The number of this step, from 1; in double precision, as powers of betas near 1 need."""
    return state["step"] + 1 if state else torch.ones((), dtype=torch.float64, device=param.device)


def schedule_factor(lr: Scalar, initial_lr: Scalar) -> Tensor:
    """The factor of the schedule: this step's rate over the peak rate; 1 where the latter is 0."""
    now = torch.as_tensor(lr, dtype=torch.float64)
    peak = torch.as_tensor(initial_lr, dtype=torch.float64, device=now.device)
    is_zero = peak == 0
    return torch.where(is_zero, 1.0, now / torch.where(is_zero, 1.0, peak))


def average(old: Tensor | float, new: Tensor, beta: Scalar) -> Tensor:
    """An exponential moving average: beta old + (1 - beta) new."""
    return beta * old + (1 - beta) * new
