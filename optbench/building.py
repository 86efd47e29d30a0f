"""From a trial to what is trained: its data, its task as the hardware config has it computed, its optimizer."""

import inspect
import json
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from optbench import components
from optbench.component import Component, Limit, OptimizerComponent
from optbench.errors import UsageError
from optbench.hardware import Hardware
from optbench.optim import build as optim_build
from optbench.parsing import json_safe
from optbench.seeding import stream
from optbench.stepper import check_step, parts
from optbench.task import Task
from optbench.trial import Trial

# What transformers (its new name and its old one) and diffusers call it.
_CHECKPOINTING: Mapping[str, Mapping[str, Any]] = {
    "activation_checkpointing_enable": {},
    # The old form loses the gradients behind frozen layers.
    "gradient_checkpointing_enable": {"gradient_checkpointing_kwargs": {"use_reentrant": False}},
    "enable_gradient_checkpointing": {},
}
_ROUNDING = "bf16_stochastic_round"
_IMPLEMENTATIONS: Mapping[str, Mapping[str, bool]] = {
    "for_loop": {"foreach": False, "fused": False},
    "foreach": {"foreach": True, "fused": False},
    "fused": {"foreach": False, "fused": True},
}

_loaded_data: dict[str, Any] = {}


def build(trial: Trial, device: torch.device) -> tuple[Task, torch.optim.Optimizer]:
    """The task and an optimizer of its model, from the trial's seed.

    Raises:
        UsageError: an argument is wrong, or the hardware config asks for what the task or optimizer does not have.
    """
    noise = stream(trial.seed, "noise")  # for optimizers, and tasks of others, that draw random numbers
    torch.manual_seed(noise)
    random.seed(noise)
    np.random.seed(noise % 2**32)
    task = build_task(trial, device)
    return task, build_optimizer(trial, task)


def build_task(trial: Trial, device: torch.device) -> Task:
    """The task, from the trial's seed.

    Raises:
        UsageError: an argument is wrong, or its model has no gradient checkpointing.
    """
    accepted = components.signature(trial.task, group="task")
    for group, part in (("data", trial.data), ("model", trial.model)):
        if part is not None and group not in accepted and not any(p.kind is p.VAR_KEYWORD for p in accepted.values()):
            raise UsageError(f"task={trial.task.name} takes no {group}: leave out {group}={part.name}.")
    supplied: dict[str, Any] = {} if trial.data is None else {"data": load_data(trial.data, device)}
    if trial.model is not None:
        supplied["model"] = components.build(trial.model, group="model")
    task: Task = components.build(trial.task, group="task", seed=trial.seed, device=device, **supplied)
    hardware = trial.hardware
    if hardware.precision.startswith("bf16_params"):
        _convert(task.model, torch.bfloat16)
    if hardware.gradient_checkpointing:
        _enable_checkpointing(task.model, name=trial.task.name)
    if hardware.compile_model:
        _compile(task.model)
    dtype = _autocast_dtype(hardware)
    return task if dtype is None else _Autocast(task, dtype, device)


def check_batches(trial: Trial, task: Task) -> None:
    """Check that the task's minibatches have the parts that the hardware config asks for.

    Raises:
        UsageError: they do not.
    """
    if trial.hardware.num_micro_batches > 1:
        parts(next(iter(task.batches())), trial.hardware.num_micro_batches)


def build_optimizer(trial: Trial, task: Task) -> torch.optim.Optimizer:
    """The optimizer, over all trainable parameters of the task's model.

    Raises:
        UsageError: an argument is wrong, or it has no such implementation.
    """
    component = optimizer_component(trial)
    return optim_build.build(component, task.model, param_groups=trial.param_groups, lr_factor=trial.lr_factor)


def optimizer_component(trial: Trial) -> OptimizerComponent:
    """The trial's optimizer with the arguments that its hardware config sets.

    Raises:
        UsageError: it does not have what is asked, or its step cannot be computed so.
    """
    hardware, component = trial.hardware, trial.optimizer
    check_step(component.capabilities, hardware)
    if hardware.compile_step and (reason := component.limits.get(Limit.COMPILED_STEP)):
        raise UsageError(
            f"hardware.compile_step=true: the step of {component.name} cannot be compiled: {reason}.\nLeave it out."
        )
    if hardware.implementation is not None:
        component = _with(
            component,
            _IMPLEMENTATIONS[hardware.implementation],
            needed=None if hardware.implementation == "for_loop" else hardware.implementation,
            asked=f"hardware.implementation={hardware.implementation}",
        )
    if hardware.precision == "bf16_params_stochastic":
        component = _with(
            component, {_ROUNDING: True}, needed=_ROUNDING, asked=f"hardware.precision={hardware.precision}"
        )
    return component


def load_data(component: Component, device: torch.device) -> Any:
    """The data set, kept for the trials to come in this process."""
    key = json.dumps([component.target, json_safe(component.arguments), str(device)], sort_keys=True)
    if key not in _loaded_data:
        _loaded_data[key] = components.build(component, group="data", device=device)
    return _loaded_data[key]


def _with(
    component: OptimizerComponent, arguments: Mapping[str, Any], *, needed: str | None, asked: str
) -> OptimizerComponent:
    """The component and its companion with these arguments, where their classes have them.

    Args:
        component: the optimizer.
        arguments: to be set.
        needed: that one of both must have; None where leaving it out means the same.
        asked: what asks for it, for the message.
    """
    both = [component] if component.companion is None else [component, component.companion]
    if needed is not None and not any(needed in components.signature(part, group="optimizer") for part in both):
        named = " nor ".join(part.target for part in both)
        raise UsageError(f"{asked}: {component.name} cannot do that ({named} has no argument {needed}).\nLeave it out.")
    companion = component.companion and _given(component.companion, arguments)
    return replace(_given(component, arguments), companion=companion)


def _given(component: OptimizerComponent, arguments: Mapping[str, Any]) -> OptimizerComponent:
    accepted = components.signature(component, group="optimizer")
    own = {
        key: value
        for key, value in arguments.items()
        if key in accepted and accepted[key].kind is not inspect.Parameter.VAR_KEYWORD
    }
    return replace(component, arguments={**component.arguments, **own})


def _autocast_dtype(hardware: Hardware) -> torch.dtype | None:
    if hardware.precision == "fp16":
        return torch.float16
    return torch.bfloat16 if hardware.precision.startswith("bf16") else None


def _convert(model: nn.Module, dtype: torch.dtype) -> None:
    """Have the parameters and buffers in this dtype; by hand, since `Module.to` cannot do so without data."""
    converted: dict[nn.Parameter, nn.Parameter] = {}
    for module in model.modules():
        for name, parameter in list(module._parameters.items()):
            if parameter is not None and parameter.is_floating_point():
                if parameter not in converted:  # a tied one stays tied
                    converted[parameter] = nn.Parameter(
                        parameter.detach().to(dtype), requires_grad=parameter.requires_grad
                    )
                setattr(module, name, converted[parameter])  # recurrent layers keep a list of them, and see it so
        for name, buffer in list(module._buffers.items()):
            if buffer is not None and buffer.is_floating_point():
                setattr(module, name, buffer.to(dtype))


def _compile(model: nn.Module) -> None:
    """As `Module.compile` does, which leaves a model alone whose class is torch's own, such as `nn.Sequential`."""
    call: Callable[..., Any] = model._call_impl

    def call_model(*args: Any, **kwargs: Any) -> Any:
        return call(*args, **kwargs)

    model._compiled_call_impl = torch.compile(call_model)


def _enable_checkpointing(model: nn.Module, *, name: str) -> None:
    """Have each outermost part of the model that can do so keep fewer activations."""
    done: set[nn.Module] = set()
    for module in model.modules():
        methods = (method for method in _CHECKPOINTING if callable(getattr(module, method, None)))
        if module in done or (method := next(methods, None)) is None:
            continue
        enable = getattr(module, method)
        accepted = inspect.signature(enable).parameters
        try:
            enable(**{key: value for key, value in _CHECKPOINTING[method].items() if key in accepted})
        except ValueError as error:  # the method is there for models that can do it and for those that cannot
            raise UsageError(f"hardware.gradient_checkpointing=true, task={name}: {error}\nLeave it out.") from error
        done.update(module.modules())
    if not done:
        raise UsageError(
            f"hardware.gradient_checkpointing=true: the model of task={name} has none "
            f"(no {', '.join(_CHECKPOINTING)}).\nLeave it out."
        )


class _Autocast:
    """A task whose losses and metrics are computed in another dtype, where torch holds that to be safe."""

    def __init__(self, task: Task, dtype: torch.dtype, device: torch.device) -> None:
        self._task = task
        self._dtype = dtype
        self._device_type = device.type

    @property
    def model(self) -> nn.Module:
        return self._task.model

    def batches(self) -> Iterator[Any]:
        return self._task.batches()

    def loss(self, batch: Any) -> Tensor:
        with torch.autocast(self._device_type, self._dtype):
            return self._task.loss(batch)

    def evaluate(self) -> Mapping[str, float]:
        with torch.autocast(self._device_type, self._dtype):
            return self._task.evaluate()

    def save(self, folder: Path) -> None:
        if (save := getattr(self._task, "save", None)) is not None:
            with torch.autocast(self._device_type, self._dtype):
                save(folder)
