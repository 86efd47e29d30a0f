"""One trial from start to result: build, train, measure; whatever happens, it ends as a row."""

import json
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from optbench import building, components, memory
from optbench.artifacts import keep
from optbench.checkpoint import Checkpoints, Keeper
from optbench.clock import Clock
from optbench.component import Limit
from optbench.control import Control
from optbench.device import configured, resolve_device
from optbench.environment import environment
from optbench.errors import UsageError
from optbench.measurement import Measurement, Result, Status, columns
from optbench.optim import build as optim_build
from optbench.parsing import finite, json_safe
from optbench.secrets import hidden
from optbench.task import Task
from optbench.train import train
from optbench.trial import CURVE_COLUMNS, Trial

MAX_WARNINGS = 100
MAX_WARNING_LENGTH = 1000

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
        optim_build.check(building.optimizer_component(trial), lr_factor=trial.lr_factor)
    parts = ("task", "data", "model", "hardware", *(("optimizer", "param_groups", "lr_scaling") if by_model else ()))
    key = json.dumps([json_safe(trial.config.get(part)) for part in parts])
    if key not in _checked:
        try:
            task = building.build_task(trial, device)
            building.check_batches(trial, task)
            if by_model:
                building.build_optimizer(trial, task)
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
    artifacts: Path | None = None,
) -> Result:
    """Train one trial; an error in it becomes a result with status `crashed` or `out_of_memory`.

    Args:
        trial: what to train.
        on_measurement: called with each measurement while the trial's clock stands still.
        control: hears how far it is, and may end it.
        checkpoints: of the trial; it goes on from the last one.
        artifacts: a folder for what the task leaves behind; None keeps nothing.

    Raises:
        UsageError: the hardware that it asks for is not there.
        KeyboardInterrupt: passed on; an interrupted trial is no result.
    """
    device = resolve_device(trial.hardware)
    clock = Clock(device)
    measurements: list[Measurement] = []
    summary: dict[str, Any] = {}
    with _noted() as warned, configured(trial.hardware, device):
        try:
            if trial.data is not None:
                data = building.load_data(trial.data, device)
                if note := getattr(data, "note", ""):
                    warnings.warn(note, stacklevel=1)
            allocated_before = _allocated(device)
            task, optimizer = building.build(trial, device)
            groups = optim_build.describe_groups(optimizer)
            keeper = None
            if checkpoints is not None:
                keeper = Keeper(checkpoints, model=task.model, optimizer=optimizer, curve=measurements)
                try:
                    keeper.resume()
                except Exception:  # whatever an optimizer does with its own state: from the beginning, then
                    checkpoints.delete()
                    task, optimizer = building.build(trial, device)
                    keeper = Keeper(checkpoints, model=task.model, optimizer=optimizer, curve=measurements)
            resumed = keeper.resumed if keeper is not None else None
            for measurement in train(
                task,
                optimizer,
                components.build(trial.schedule, group="schedule"),
                capabilities=trial.optimizer.capabilities,
                hardware=trial.hardware,
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
                summary = _sizes(task, optimizer)
            if allocated_before is not None:
                summary["peak_bytes"] = torch.cuda.max_memory_allocated(device) - allocated_before
            summary["param_groups"] = groups
            if artifacts is not None and status.succeeded and (names := keep(task, artifacts)):
                summary["artifacts"] = names
            if resumed is not None:
                summary["resumed_at_step"] = resumed["step"]
        except (Exception, SystemExit) as error:  # whatever it is, it costs this trial alone
            status = Status.OUT_OF_MEMORY if is_out_of_memory(error) else Status.CRASHED
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


@contextmanager
def _noted() -> Iterator[list[warnings.WarningMessage]]:
    """What libraries warn of while a trial runs: kept with its result, not printed amid the progress."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.filterwarnings("default", category=UserWarning)
        yield caught


def _check_metrics(first: Measurement, trial: Trial) -> None:
    declared = set(trial.config["task"].get("metrics") or ()) - {"train_loss"}
    if missing := declared - first.metrics.keys():
        raise UsageError(f"task.metrics lists {', '.join(sorted(missing))}, which evaluate() does not return.")
    if taken := {*CURVE_COLUMNS, "num_steps"} & first.metrics.keys():
        raise UsageError(f"evaluate() returns {', '.join(sorted(taken))}: a name that every curve has already.")


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


def _allocated(device: torch.device) -> int | None:
    """Bytes allocated on a GPU, from where its peak is counted anew; None on the CPU, where nobody counts."""
    if device.type != "cuda":
        return None
    torch.cuda.reset_peak_memory_stats(device)
    return torch.cuda.memory_allocated(device)


def _sizes(task: Task, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Bytes of what is there at the end: the trained parameters and the optimizer's state."""
    trained = [parameter for parameter in task.model.parameters() if parameter.requires_grad]
    return {
        "num_parameters": sum(parameter.numel() for parameter in trained),
        "parameter_bytes": sum(parameter.numel() * parameter.element_size() for parameter in trained),
        "state_bytes": memory.state_bytes(optimizer),
        "low_bit_share": memory.low_bit_share(optimizer),
    }


def is_out_of_memory(error: BaseException) -> bool:
    """Whether this is the error of who asked for more memory than there was."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "can't allocate memory" in str(error)


def _text(text: str) -> str:
    """Text that any file can hold: a message may carry half a character."""
    return text.encode(errors="replace").decode()
