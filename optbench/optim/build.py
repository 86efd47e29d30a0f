"""From an optimizer's config to a `torch.optim.Optimizer` that holds every trainable parameter."""

import warnings
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from optbench.component import Component, Limit, OptimizerComponent
from optbench.components import build as build_component
from optbench.components import locate, resolve, signature
from optbench.errors import UsageError, unknown
from optbench.optim.combined import Combined
from optbench.optim.param_groups import Bound, Group, hidden_matrices, is_matrix, trainable
from optbench.optim.refused import NEEDS_MATRICES, REFUSED, REFUSED_ARGUMENTS

MAX_SOUND = 10_000
_sound: set[tuple[Any, str, float]] = set()  # what `check` has built


def build(
    component: OptimizerComponent,
    model: nn.Module,
    *,
    param_groups: Component | None = None,
    lr_factor: float = 1.0,
) -> torch.optim.Optimizer:
    """The optimizer with its hyperparameters bound, over all trainable parameters of the model.

    Args:
        component: what is to be built.
        model: frozen parameters are left out.
        param_groups: which parameters get which hyperparameters; None is one group.
        lr_factor: every rate is multiplied by it.

    Raises:
        UsageError: the class is no optimizer, is not what its name says, does not accept a hyperparameter or refuses
            its value, or leaves a trainable parameter out.
    """
    _refuse(component)
    if component.companion is not None:
        _refuse(component.companion)
    parameters = [parameter for _, parameter, _ in trainable(model)]
    if not parameters:
        raise UsageError(f"{component.name}: the model has no trainable parameter.")
    reason = component.limits.get(Limit.BF16_PARAMETERS)
    if reason and any(parameter.dtype == torch.bfloat16 for parameter in parameters):
        warnings.warn(f"bfloat16 parameters do not train: {reason}", stacklevel=2)

    component = _scaled(component, lr_factor)
    groups = _groups(component, param_groups, model=model, lr_factor=lr_factor, beside=component.companion)
    if component.companion is not None:
        companion = _scaled(component.companion, lr_factor)
        others = _groups(companion, param_groups, model=model, lr_factor=lr_factor, beside=component)
        optimizer = _with_companion(component, groups, companion=companion, others=others, model=model)
    else:
        if component.matrices:
            matrices = {id(parameter) for _, parameter, module in trainable(model) if is_matrix(parameter, module)}
            inside, outside = _split(groups, matrices)
            groups = [*(replace(group, own={**group.own, **component.matrices}) for group in inside), *outside]
        optimizer = _build(component, groups)

    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    left_out = sum(id(parameter) not in held for parameter in parameters)
    if left_out:
        raise UsageError(f"{component.name} leaves out {left_out} of {len(parameters)} trainable parameters.")
    return optimizer


def check(component: OptimizerComponent, *, lr_factor: float = 1.0) -> None:
    """Build the optimizer over three small layers, so that a mistake shows before anything trains.

    What is the same in every digit is built once, as long as its class is the same.

    Raises:
        UsageError: as `build`.
    """
    key = locate(component, group="optimizer"), repr(component), lr_factor
    if key not in _sound:
        build(component, nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2)), lr_factor=lr_factor)
        if len(_sound) >= MAX_SOUND:
            _sound.clear()
        _sound.add(key)


def describe_groups(optimizer: torch.optim.Optimizer) -> list[dict[str, Any]]:
    """Each group fully stated: how many parameters it holds, and all its hyperparameters that are plain values."""
    return [
        {
            "num_parameters": sum(parameter.numel() for parameter in group["params"]),
            **{
                key: value.item() if isinstance(value, torch.Tensor) else value
                for key, value in group.items()
                if isinstance(value, (bool, int, float, str, tuple, list, type(None)))
                or (isinstance(value, torch.Tensor) and value.numel() == 1)
                if key != "params"
            },
        }
        for group in optimizer.param_groups
    ]


def _refuse(component: OptimizerComponent) -> None:
    target = _known_as(component, {*REFUSED, *REFUSED_ARGUMENTS, *NEEDS_MATRICES})
    if reason := REFUSED.get(target):
        raise UsageError(f"{component.target} is refused: {reason}")
    for argument, (value, reason) in REFUSED_ARGUMENTS.get(target, {}).items():
        given = component.arguments.get(argument, value)
        if given != value:
            raise UsageError(f"optimizer.{argument}={given} with {component.target} is refused: {reason}")
    for key in NEEDS_MATRICES.get(target, ()):
        value = component.matrices.get(key)
        if isinstance(value, int) and value < 1:
            raise UsageError(f"optimizer.matrices.{key}={value}: it must be above 0.")
        if value is None:
            raise UsageError(
                f"{component.name} ({component.target}) is plain Adam without optimizer.matrices.{key}: give it."
            )


def _known_as(component: Component, names: Iterable[str]) -> str:
    """Which of these names the target has; its own where it has none of them: a class can be spelt in many ways."""
    package = component.target.partition(".")[0]
    target = locate(component, group="optimizer")
    for name in names:
        if name.startswith(f"{package}.") and resolve(name) is target:
            return name
    return component.target


def _scaled(component: OptimizerComponent, lr_factor: float) -> OptimizerComponent:
    """The component with its rate multiplied."""
    if lr_factor == 1.0:
        return component
    lr = component.arguments.get("lr")
    if not isinstance(lr, (int, float)):
        raise UsageError(
            f"lr_scaling: optimizer={component.name} has no lr to scale; give it, or leave lr_scaling out."
        )
    along = [key for key, other in component.follow.items() if other == "lr"]
    scaled = {key: component.arguments[key] * lr_factor for key in ("lr", *along)}
    return replace(component, arguments={**component.arguments, **scaled})


def _defaults(component: Component) -> dict[str, Any]:
    """The defaults of the class, for what the file leaves out."""
    _, *parameters = signature(component, group="optimizer").values()
    return {parameter.name: parameter.default for parameter in parameters if parameter.default is not parameter.empty}


def _groups(
    component: OptimizerComponent,
    param_groups: Component | None,
    *,
    model: nn.Module,
    lr_factor: float,
    beside: OptimizerComponent | None,
) -> list[Group]:
    """The groups of all parameters, with this optimizer's values.

    A group may have a key that only the optimizer `beside` knows, as long as it ends up there: `_build` sees to that.
    """
    if param_groups is None:
        return [Group(name="all", params=[parameter for _, parameter, _ in trainable(model)], own={})]
    others = {} if beside is None else {**_defaults(beside), **beside.arguments}
    bound = Bound(
        name=component.name if beside is None else f"{component.name} beside {beside.name}",
        hyperparameters={**others, **_defaults(component), **component.arguments},
        decay=component.decay,
        lr_factor=lr_factor,
    )
    found: list[Group] = build_component(param_groups, group="param_groups", model=model, optimizer=bound)
    groups = [replace(group, own=_followed(group.own, bound.hyperparameters, component.follow)) for group in found]
    for group in groups:
        _refuse(replace(component, arguments={**component.arguments, **group.own}))
    return groups


def _followed(own: Mapping[str, Any], values: Mapping[str, Any], follow: Mapping[str, str]) -> dict[str, Any]:
    """A group's own values, with those that go along: in proportion, or equal where the value was 0."""
    along = {
        key: own[other] * (values[key] / values[other] if values[other] else 1.0)
        for key, other in follow.items()
        if other in own and key not in own
    }
    return {**own, **along}


def _split(groups: Sequence[Group], chosen: Set[int]) -> tuple[list[Group], list[Group]]:
    """The groups of the parameters chosen, by their `id`, and those of the others; no group is empty."""
    halves = tuple(
        [
            replace(group, params=params)
            for group in groups
            if (params := [parameter for parameter in group.params if (id(parameter) in chosen) is inside])
        ]
        for inside in (True, False)
    )
    return halves[0], halves[1]


def _with_companion(
    component: OptimizerComponent,
    groups: Sequence[Group],
    *,
    companion: OptimizerComponent,
    others: Sequence[Group],
    model: nn.Module,
) -> torch.optim.Optimizer:
    """Hidden matrices for the optimizer, everything else for its companion."""
    hidden = {id(parameter) for _, parameter, is_hidden in hidden_matrices(model) if is_hidden}
    if not hidden:
        raise UsageError(
            f"{component.name} trains hidden matrices alone, and this task's model has none "
            "(weights in two dimensions, neither in the first nor in the last layer). Choose another task or optimizer."
        )
    optimizer = _build(component, _split(groups, hidden)[0])
    rest = _split(others, hidden)[1]
    return Combined([optimizer, _build(companion, rest)]) if rest else optimizer


def _build(component: OptimizerComponent, groups: Sequence[Group]) -> torch.optim.Optimizer:
    # The first parameter of every torch optimizer is the parameters; most call it `params`.
    first = next(iter(signature(component, group="optimizer")), "params")
    plain = len(groups) == 1 and not groups[0].own
    params = list(groups[0].params) if plain else [{"params": list(group.params), **group.own} for group in groups]
    try:
        optimizer = build_component(component, group="optimizer", **{first: params})
    except UsageError:
        raise
    except (Exception, SystemExit) as error:  # some libraries leave with exit() where a package of theirs is missing
        given = ", ".join(f"{key}={value}" for key, value in component.arguments.items())
        reason = f": {error}" if str(error) else ""
        raise UsageError(f"{component.name} ({component.target}) refuses {given}{reason}.") from error
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise UsageError(f"optimizer {component.name!r}: {component.target} is not a torch.optim.Optimizer.")
    named = signature(component, group="optimizer")
    for key in component.arguments:
        if key not in named and key not in optimizer.defaults:  # a class that takes any key and passes it over
            raise unknown("key", key, list(named)[1:], where=f"for {component.target}", prefix="optimizer.")
    for group in groups:
        for key in group.own:
            if key not in optimizer.defaults and key not in component.matrices:
                raise UsageError(
                    f"param_groups: {component.target} does not take {key} for a single group ({group.name}).\n"
                    f"It takes: {', '.join(optimizer.defaults)}."
                )
    return optimizer
