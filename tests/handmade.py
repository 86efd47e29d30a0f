"""Trials and results made by hand, for tests of what comes after training."""

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from optbench.component import Component
from optbench.execution import Context, Limits
from optbench.hardware import Hardware
from optbench.measurement import Result, Status
from optbench.trial import Trial

CONFIG: dict[str, Any] = {
    "task": {
        "name": "blobs",
        "_target_": "my_lab.tasks.Blobs",
        "batch_size": 64,
        "num_steps": 100,
        "evaluate_every_num_steps": 10,
        "metrics": {"test_loss": "min", "test_accuracy": "max"},
    },
    "data": {"name": "points", "_target_": "my_lab.data.load", "sha256": "0" * 64, "path": None},
    "optimizer": {
        "name": "adamw",
        "_target_": "torch.optim.AdamW",
        "lr": 0.001,
        "betas": [0.9, 0.999],
        "weight_decay": 0.01,
        "convention": {"momentum": "averages"},
    },
    "schedule": {"name": "constant", "_target_": "optbench.schedule.constant", "warmup": 0.0},
    "budget": {"num_steps": None, "seconds": None},
    "evaluation": {"every_num_steps": None},
    "target": {"metric": None, "value": None},
    "divergence": {"max_loss": 1e6},
    "hardware": {"device": "auto", "num_threads": 1},
    "seed": 0,
    "logger": {"name": "none", "_target_": "optbench.loggers.NullLogger"},
    "sweep": {"name": "default", "params": {"seed": "range(3)"}, "rerun": None},
    "results": "results",
}


def context(
    results: Path, *, sweep: str = "default", hardware: Sequence[Hardware] = (), grace_seconds: float = 0.0
) -> Context:
    """What `optbench sweep` would hand to workers: no limits, no logger, and the catalogue's packages alone."""
    return Context(
        results=str(results),
        sweep=sweep,
        logger=Component(name="none", target="optbench.loggers.NullLogger", arguments={}),
        allowed=(),
        limits=Limits(trial_seconds=None, no_progress_seconds=None, sweep_seconds=None, grace_seconds=grace_seconds),
        checkpoint_seconds=None,
        hardware=hardware,
    )


FAILURES = [status for status in Status if not status.succeeded]


def config(changes: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """`CONFIG` with other values for these dotted keys; the value `...` deletes the key."""
    made = copy.deepcopy(CONFIG)
    for key, value in (changes or {}).items():
        node = made
        *parents, last = key.split(".")
        for parent in parents:
            node = node[parent]
        node[last] = value
        if value is ...:
            del node[last]
    return made


def trial(changes: Mapping[str, Any] | None = None) -> Trial:
    return Trial.from_config(config(changes))


def result(test_loss: float | None = 0.5, *, status: Status = Status.COMPLETED, **summary: Any) -> Result:
    """What `optbench.run.run` would have found."""
    figures = {"num_steps": 100, "seconds": 2.0, "num_parameters": 1000, "state_bytes": 8000, "peak_bytes": 2048}
    return Result(
        status=status,
        summary={**figures, "test_loss": test_loss if status.succeeded else None, **summary},
        curve={"step": [0, 100], "seconds": [0.0, 2.0], "lr": [0.001, 0.001], "test_loss": [1.0, test_loss]},
        timing={"train_seconds": 2.0, "step_seconds": 0.02},
        environment={
            "packages": {"optbench": "0.1.0", "torch": "2.10.0"},
            "commit": None,
            "device": "Abacus 3",
            "device_type": "cpu",
            "num_threads": 1,
        },
    )
