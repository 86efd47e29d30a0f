"""One trial from start to result: build, train, measure; whatever happens, it ends as a row."""

import json
import math
import platform
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from optbench import components, memory
from optbench.clock import Clock
from optbench.environment import environment
from optbench.errors import UsageError
from optbench.measurement import Measurement, Status, columns
from optbench.optim import build as optim_build
from optbench.task import Task
from optbench.train import train
from optbench.trial import Component, Hardware, Trial, json_safe

_loaded_data: dict[str, Any] = {}
_checked_tasks: set[str] = set()


@dataclass(frozen=True, kw_only=True)
class Result:
    """What one run of a trial found, in JSON's terms.

    Attributes:
        status: how it ended.
        summary: figures at the end, by name; a figure that does not exist is None.
        curve: the measurements in columns.
        timing: seconds of training, and the median seconds per step.
        environment: versions, commit and machine.
    """

    status: Status
    summary: Mapping[str, Any]
    curve: Mapping[str, Any]
    timing: Mapping[str, Any]
    environment: Mapping[str, Any]


def check(trial: Trial) -> None:
    """Everything that can be known to be wrong before training: called for each trial before the first one starts.

    Raises:
        UsageError: a target cannot be imported, a hyperparameter is unknown or refused, the data or device are
            missing.
    """
    device = resolve_device(trial.hardware)
    try:
        components.build(trial.schedule, group="schedule")
    except TypeError as error:  # a null, where the file has a number
        given = dict(trial.schedule.arguments)
        raise UsageError(f"schedule {trial.schedule.name!r} refuses {given}: {error}.") from error
    optim_build.check(trial.optimizer)
    key = json.dumps([json_safe(trial.config[part]) for part in ("task", "data") if part in trial.config])
    if key not in _checked_tasks:
        try:
            _build_task(trial, device)
        except UsageError:
            raise
        except Exception:  # a fault, not a mistake: `run` makes it a row, and the other trials go on
            pass
        _checked_tasks.add(key)


def run(trial: Trial, *, on_measurement: Callable[[Measurement], None]) -> Result:
    """Train one trial; an error in it becomes a result with status `crashed` or `out_of_memory`.

    Args:
        trial: what to train.
        on_measurement: called with each measurement while the trial's clock stands still.

    Raises:
        UsageError: the hardware that it asks for is not there.
        KeyboardInterrupt: passed on; an interrupted trial is no result.
    """
    device = resolve_device(trial.hardware)
    torch.set_num_threads(trial.hardware.num_threads)
    clock = Clock(device)
    measurements: list[Measurement] = []
    summary: dict[str, Any] = {}
    try:
        if trial.data is not None:
            _load_data(trial.data, device)
        allocated_before = torch.cuda.memory_allocated(device) if device.type == "cuda" else 0
        task = _build_task(trial, device)
        optimizer = optim_build.build(trial.optimizer, task.model.parameters())
        for measurement in train(
            task,
            optimizer,
            components.build(trial.schedule, group="schedule"),
            budget=trial.budget,
            every_num_steps=trial.evaluation.every_num_steps,
            max_loss=trial.max_loss,
            target=trial.target,
            clock=clock,
        ):
            if not measurements:
                _check_metrics(measurement, trial)
            measurements.append(measurement)
            on_measurement(measurement)
        status = measurements[-1].status
        assert status is not None, "training ends with a status"
        summary = _memory(task, optimizer, device=device, allocated_before=allocated_before)
    except (Exception, SystemExit) as error:  # whatever it is, it costs this trial alone
        status = Status.OUT_OF_MEMORY if _is_out_of_memory(error) else Status.CRASHED
        summary = {"reason": _text(f"{type(error).__name__}: {error}"), "traceback": _text(traceback.format_exc())}
    return Result(
        status=status,
        summary=_finite({**_final_figures(measurements, trial), **summary}),
        curve={name: [_finite(value) for value in column] for name, column in columns(measurements).items()},
        timing={"train_seconds": clock.seconds, "step_seconds": clock.step_seconds},
        environment=environment(device),
    )


def resolve_device(hardware: Hardware) -> torch.device:
    """The device that the hardware config asks for.

    Raises:
        UsageError: it asks for a GPU and there is none.
    """
    if hardware.device == "cuda" and not torch.cuda.is_available():
        raise UsageError(
            f"hardware.device=cuda, but torch {torch.__version__} on {platform.node()} finds no GPU.\n"
            "Use hardware=cpu or hardware=auto."
        )
    if hardware.device == "cuda" or (hardware.device == "auto" and torch.cuda.is_available()):
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")


def _build_task(trial: Trial, device: torch.device) -> Task:
    data = {} if trial.data is None else {"data": _load_data(trial.data, device)}
    task: Task = components.build(trial.task, group="task", seed=trial.seed, device=device, **data)
    return task


def _check_metrics(first: Measurement, trial: Trial) -> None:
    declared = set(trial.config["task"].get("metrics") or ()) - {"train_loss"}
    if missing := declared - first.metrics.keys():
        raise UsageError(f"task.metrics lists {', '.join(sorted(missing))}, which evaluate() does not return.")
    if taken := {"step", "seconds", "lr", "num_steps"} & first.metrics.keys():
        raise UsageError(f"evaluate() returns {', '.join(sorted(taken))}: a name that every curve has already.")


def _load_data(component: Component, device: torch.device) -> Any:
    """The data set, kept for the trials to come in this process."""
    key = json.dumps([component.target, json_safe(component.arguments), str(device)], sort_keys=True)
    if key not in _loaded_data:
        _loaded_data[key] = components.build(component, group="data", device=device)
    return _loaded_data[key]


def _final_figures(measurements: list[Measurement], trial: Trial) -> dict[str, Any]:
    if not measurements:
        return {"num_steps": 0}
    last = measurements[-1]
    figures: dict[str, Any] = {"num_steps": last.step, "seconds": last.seconds}
    if last.status is Status.DIVERGED:
        finite = [row for row in measurements[:-1] if "train_loss" in row.metrics]
        figures["diverged_at_step"] = last.step
        figures["last_train_loss_before"] = finite[-1].metrics["train_loss"] if finite else None
        names = dict.fromkeys(name for row in measurements for name in row.metrics)
        return {**figures, **dict.fromkeys(names)}
    if trial.target is not None and last.status is Status.REACHED_TARGET:
        figures["steps_to_target"] = last.step
        figures["seconds_to_target"] = last.seconds
    return {**figures, **last.metrics}


def _memory(
    task: Task, optimizer: torch.optim.Optimizer, *, device: torch.device, allocated_before: int
) -> dict[str, Any]:
    """Bytes of the trained parameters, the optimizer's state, and the peak of one more step, data set excluded."""
    trained = [parameter for parameter in task.model.parameters() if parameter.requires_grad]
    figures: dict[str, Any] = {
        "num_parameters": sum(parameter.numel() for parameter in trained),
        "parameter_bytes": sum(parameter.numel() * parameter.element_size() for parameter in trained),
        "state_bytes": None,
        "peak_bytes": None,
    }
    try:
        figures["state_bytes"] = memory.state_bytes(optimizer)
        batch = next(task.batches())

        def one_more_step() -> None:
            optimizer.zero_grad()
            task.loss(batch).backward()
            optimizer.step()

        if device.type == "cuda":
            figures["peak_bytes"] = memory.peak_allocated_bytes(one_more_step, device=device) - allocated_before
            figures["peak_bytes_are"] = "allocated on the GPU in a step"
        else:
            figures["peak_bytes"] = memory.peak_tensor_bytes(
                one_more_step, module=task.model, optimizer=optimizer, batch=batch
            )
            figures["peak_bytes_are"] = "tensor bytes of a step"
    except Exception as error:  # the training is done: its result must not be lost to a step that cannot be traced
        figures["peak_bytes_are"] = _text(f"not measured ({type(error).__name__}: {error})")
    return figures


def _is_out_of_memory(error: BaseException) -> bool:
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "can't allocate memory" in str(error)


def _text(text: str) -> str:
    """Text that any file can hold: a message may carry half a character."""
    return text.encode(errors="replace").decode()


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
