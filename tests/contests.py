"""Contests made by hand, with the curves of their trials."""

from collections.abc import Mapping, Sequence
from typing import Any

from optbench.contest import Contender, Contest
from optbench.cost import Cost, Memory, Phase
from optbench.curves import Curves
from optbench.stats import estimate
from optbench.tables import Row

METRICS = {"test_accuracy": "max", "train_loss": "min"}


def row(
    optimizer: str,
    lr: float | None,
    values: Sequence[float],
    *,
    failures: Mapping[str, int] | None = None,
    metrics: Mapping[str, str] = METRICS,
    keys: Mapping[str, Any] | None = None,
    **changes: Any,
) -> Row:
    """A setting with a value of the first metric for each seed that succeeded."""
    own = {"lr": lr, **(keys or {})}
    failed = dict(failures or {})
    num_trials = len(values) + sum(failed.values())
    metric = next(iter(metrics))
    fields: dict[str, Any] = {
        "task": "blobs",
        "optimizer": optimizer,
        "setting": own,
        "mark": "",
        "num_trials": num_trials,
        "metrics": {metric: estimate(list(values))} if values else {},
        "steps_to_target": None,
        "seconds_to_target": None,
        "num_reached": None,
        "step_seconds": 0.002,
        "state_bytes_per_parameter": 8.0,
        "peak_bytes": None,
        "cost": None,
        "failures": failed,
        "config": {"task": {"name": "blobs", "metrics": dict(metrics)}, "optimizer": {"name": optimizer, **own}},
        "values": dict(enumerate(values)),
        "ranking": dict(enumerate(values)),
        "difference": None,
        "ids": [f"{optimizer} {own} {seed}" for seed in range(num_trials)],
        "seeds": list(range(num_trials)),
    }
    return Row(**{**fields, **changes})


def contender(rows: Sequence[Row], *, is_control: bool = False) -> Contender:
    return Contender(
        optimizer=rows[0].optimizer,
        rows=rows,
        default=None,
        edges=[],
        difference=None,
        is_tied=False,
        is_control=is_control,
    )


def contest(contenders: Sequence[Contender], *, start: float | None = 0.1, task: str = "blobs") -> Contest:
    first = contenders[0].best
    return Contest(
        task=task,
        metric=first.metric,
        direction=first.direction,
        start=start,
        rows=[own for one in contenders for own in one.rows],
        contenders=contenders,
        label=None,
        label_reason="",
        config=first.config,
    )


def record(seed: int, columns: Mapping[str, Sequence[float | None]], *, status: str = "completed") -> dict[str, Any]:
    """As a store has it, of a trial whose steps take 2 ms."""
    steps = columns.get("step") or list(range(0, 10 * len(next(iter(columns.values()))), 10))
    clocks = {
        "step": steps,
        "seconds": [step * 0.002 for step in steps if step is not None],
        "gradient_evaluations": steps,
    }
    return {"config": {"seed": seed}, "status": status, "curve": {**clocks, **columns}}


def curves(records: Mapping[str, Mapping[str, Any]]) -> Curves:
    return Curves(records.get)


def memory(parts: Mapping[str, int], *, kind: Any = "measured") -> Memory:
    peak = sum(parts.values())
    return Memory(
        kind=kind,
        counted="tensors",
        num_parameters=100,
        parameter_bytes=parts.get("parameters", 0),
        frozen_bytes=0,
        gradient_bytes=parts.get("gradients", 0),
        state_bytes=parts.get("state", 0),
        state_bytes_by_dtype={},
        batch_bytes=0,
        activation_bytes=0,
        transient_bytes=0,
        peak_bytes=peak,
        peak_phase=Phase.OPTIMIZER,
        phase_peak_bytes={},
        peak_parts=parts,
        num_steps=1,
    )


def cost(*, measured: Memory | None = None, predicted: Memory | None = None) -> Cost:
    return Cost(
        id="0" * 16,
        config={},
        memory=measured,
        predicted=predicted,
        time=None,
        contended=None,
        failures={},
        environment={},
    )
