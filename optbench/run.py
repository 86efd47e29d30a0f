"""One trial from start to result: build, train, measure; whatever happens, it ends as a row."""

import json
import os
import platform
import random
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch

from optbench import components, memory
from optbench.checkpoint import Checkpoints, Keeper
from optbench.clock import Clock
from optbench.component import Capability, Component, Limit
from optbench.control import Control
from optbench.environment import environment
from optbench.errors import UsageError
from optbench.measurement import Measurement, Result, Status, columns
from optbench.optim import build as optim_build
from optbench.parsing import finite, json_safe
from optbench.secrets import hidden
from optbench.seeding import stream
from optbench.task import Task
from optbench.train import Stepper, train
from optbench.trial import CURVE_COLUMNS, Hardware, Trial

MAX_WARNINGS = 100
MAX_WARNING_LENGTH = 1000

_loaded_data: dict[str, Any] = {}
_checked: set[str] = set()


def check(trial: Trial, *, is_here: bool = True) -> None:
    """Everything that can be known to be wrong before training: called for each trial before the first one starts.

    Args:
        trial: to be looked at.
        is_here: whether it will run on this machine, so that its device has to be here.

    Raises:
        UsageError: a target cannot be imported, a hyperparameter is unknown or refused, the data or device are
            missing.
    """
    device = resolve_device(trial.hardware) if is_here else torch.device("cpu")
    schedule = components.build_schedule(trial.schedule)
    if trial.optimizer.arguments.get("lr", 0.0) is None and any(schedule(i / 64) != 1.0 for i in range(64)):
        raise UsageError(
            f"{trial.optimizer.name} chooses its rate by itself (optimizer.lr is null), and "
            f"schedule={trial.schedule.name} would change it.\n"
            "Use schedule=constant without warm-up, or give optimizer.lr and what it needs."
        )
    reason = trial.optimizer.limits.get(Limit.ZERO_RATE)
    if reason and schedule(0.0) == 0.0:
        raise UsageError(
            f"{trial.optimizer.name}: the first step of schedule={trial.schedule.name} has rate 0, which breaks it: "
            f"{reason}.\nUse schedule.warmup=0.0."
        )
    # Which parameters an optimizer takes may depend on the model: then the real one is needed.
    by_model = trial.param_groups is not None or trial.optimizer.companion is not None or trial.optimizer.matrices
    if not by_model:
        optim_build.check(trial.optimizer, lr_factor=trial.lr_factor)
    parts = ("task", "data", *(("optimizer", "param_groups", "lr_scaling") if by_model else ()))
    key = json.dumps([json_safe(trial.config.get(part)) for part in parts])
    if key not in _checked:
        try:
            task = _build_task(trial, device)
            if by_model:
                _build_optimizer(trial, task)
        except UsageError:
            raise
        except Exception:  # a fault, not a mistake: `run` makes it a row, and the other trials go on
            pass
        _checked.add(key)


def run(
    trial: Trial,
    *,
    on_measurement: Callable[[Measurement], None],
    control: Control | None = None,
    checkpoints: Checkpoints | None = None,
) -> Result:
    """Train one trial; an error in it becomes a result with status `crashed` or `out_of_memory`.

    Args:
        trial: what to train.
        on_measurement: called with each measurement while the trial's clock stands still.
        control: hears how far it is, and may end it.
        checkpoints: of the trial; it goes on from the last one.

    Raises:
        UsageError: the hardware that it asks for is not there.
        KeyboardInterrupt: passed on; an interrupted trial is no result.
    """
    device = resolve_device(trial.hardware)
    torch.set_num_threads(trial.hardware.num_threads)
    clock = Clock(device)
    measurements: list[Measurement] = []
    summary: dict[str, Any] = {}
    with _noted() as warned, _isolated():
        try:
            if trial.data is not None:
                _load_data(trial.data, device)
            allocated_before = torch.cuda.memory_allocated(device) if device.type == "cuda" else 0
            task, optimizer = _build(trial, device)
            groups = optim_build.describe_groups(optimizer)
            keeper = None
            if checkpoints is not None:
                keeper = Keeper(checkpoints, model=task.model, optimizer=optimizer, curve=measurements)
                try:
                    keeper.resume()
                except Exception:  # whatever an optimizer does with its own state: from the beginning, then
                    checkpoints.delete()
                    task, optimizer = _build(trial, device)
                    keeper = Keeper(checkpoints, model=task.model, optimizer=optimizer, curve=measurements)
            resumed = keeper.resumed if keeper is not None else None
            for measurement in train(
                task,
                optimizer,
                components.build(trial.schedule, group="schedule"),
                capabilities=trial.optimizer.capabilities,
                max_grad_norm=trial.max_grad_norm,
                budget=trial.budget,
                every_num_steps=trial.evaluation.every_num_steps,
                max_loss=trial.max_loss,
                target=trial.target,
                clock=clock,
                control=control,
                keeper=keeper,
            ):
                if not measurements:
                    _check_metrics(measurement, trial)
                measurements.append(measurement)
                on_measurement(measurement)
            status = measurements[-1].status
            assert status is not None, "training ends with a status"
            if status is not Status.PREEMPTED:
                summary = _memory(task, optimizer, trial=trial, device=device, allocated_before=allocated_before)
            summary["param_groups"] = groups
            if resumed is not None:
                summary["resumed_at_step"] = resumed["step"]
        except (Exception, SystemExit) as error:  # whatever it is, it costs this trial alone
            status = Status.OUT_OF_MEMORY if _is_out_of_memory(error) else Status.CRASHED
            reason, trace = f"{type(error).__name__}: {error}", traceback.format_exc()
            summary = {"reason": hidden(_text(reason)), "traceback": hidden(_text(trace))}
    if warned:
        lines = list(dict.fromkeys(str(warning.message)[:MAX_WARNING_LENGTH] for warning in warned))
        more = [f"and {len(lines) - MAX_WARNINGS} more"] if len(lines) > MAX_WARNINGS else []
        summary["warnings"] = hidden(_text("\n".join([*lines[:MAX_WARNINGS], *more])))
    return Result(
        status=status,
        summary=finite({**_final_figures(measurements, trial), **summary}),
        curve={name: [finite(value) for value in column] for name, column in columns(measurements).items()},
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


def _build(trial: Trial, device: torch.device) -> tuple[Task, torch.optim.Optimizer]:
    noise = stream(trial.seed, "noise")  # for optimizers, and tasks of others, that draw random numbers
    torch.manual_seed(noise)
    random.seed(noise)
    np.random.seed(noise % 2**32)
    task = _build_task(trial, device)
    return task, _build_optimizer(trial, task)


def _build_task(trial: Trial, device: torch.device) -> Task:
    data = {} if trial.data is None else {"data": _load_data(trial.data, device)}
    task: Task = components.build(trial.task, group="task", seed=trial.seed, device=device, **data)
    return task


def _build_optimizer(trial: Trial, task: Task) -> torch.optim.Optimizer:
    return optim_build.build(trial.optimizer, task.model, param_groups=trial.param_groups, lr_factor=trial.lr_factor)


@contextmanager
def _noted() -> Iterator[list[warnings.WarningMessage]]:
    """What libraries warn of while a trial runs: kept with its result, not printed amid the progress."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.filterwarnings("default", category=UserWarning)
        yield caught


@contextmanager
def _isolated() -> Iterator[None]:
    """What a trial changes for its whole process is as it was for the next one."""
    folder, dtype, has_grad = Path.cwd(), torch.get_default_dtype(), torch.is_grad_enabled()
    anomaly, benchmark = torch.is_anomaly_enabled(), torch.backends.cudnn.benchmark
    strict = torch.are_deterministic_algorithms_enabled()
    only_warns = torch.is_deterministic_algorithms_warn_only_enabled()
    precision = torch.get_float32_matmul_precision()
    try:
        yield
    finally:
        torch.set_default_dtype(dtype)
        torch.set_default_device(None)
        torch.set_grad_enabled(has_grad)
        torch.autograd.set_detect_anomaly(anomaly)
        torch.use_deterministic_algorithms(strict, warn_only=only_warns)
        torch.set_float32_matmul_precision(precision)
        torch.backends.cudnn.benchmark = benchmark
        with suppress(OSError):
            os.chdir(folder)


def _check_metrics(first: Measurement, trial: Trial) -> None:
    declared = set(trial.config["task"].get("metrics") or ()) - {"train_loss"}
    if missing := declared - first.metrics.keys():
        raise UsageError(f"task.metrics lists {', '.join(sorted(missing))}, which evaluate() does not return.")
    if taken := {*CURVE_COLUMNS, "num_steps"} & first.metrics.keys():
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
    figures: dict[str, Any] = {
        "num_steps": last.step,
        "seconds": last.seconds,
        "gradient_evaluations": last.gradient_evaluations,
    }
    names = dict.fromkeys(name for row in measurements for name in row.metrics)
    if last.status in (Status.PRUNED, Status.PREEMPTED):
        return {**figures, **dict.fromkeys(names)}
    if last.status is Status.DIVERGED:
        finite = [row for row in measurements[:-1] if "train_loss" in row.metrics]
        figures["diverged_at_step"] = last.step
        figures["last_train_loss_before"] = finite[-1].metrics["train_loss"] if finite else None
        return {**figures, **dict.fromkeys(names)}
    if trial.target is not None and last.status is Status.REACHED_TARGET:
        figures["steps_to_target"] = last.step
        figures["seconds_to_target"] = last.seconds
    return {**figures, **last.metrics}


def _memory(
    task: Task, optimizer: torch.optim.Optimizer, *, trial: Trial, device: torch.device, allocated_before: int
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
        figures["low_bit_share"] = memory.low_bit_share(optimizer)
        batch = next(task.batches())
        capabilities = trial.optimizer.capabilities
        if Capability.TRAIN_EVAL in capabilities:
            optimizer.train()  # type: ignore[attr-defined]
        step_on = Stepper(task.loss, optimizer, capabilities=capabilities, max_grad_norm=trial.max_grad_norm)

        def one_more_step() -> None:
            with torch.compiler.set_stance("force_eager"):  # compiled code is not seen tensor by tensor
                step_on(batch)

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
