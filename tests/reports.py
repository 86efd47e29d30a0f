"""Stores filled by hand, for tests of reports: trials whose figures are chosen, with curves that end in them."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from optbench import tables
from optbench.analysis import Analysis, analyse
from optbench.contest import Contest
from optbench.contests import contests
from optbench.curves import Curves
from optbench.gathering import gather
from optbench.measurement import Result, Status
from optbench.store import Store
from tests.handmade import result, trial

STEPS = [0, 25, 50, 75, 100]
START = 10.0  # the loss before training


def curve(end: float | None, *, seed: int) -> dict[str, list[float | None]]:
    """A loss that falls from `START` to its end; from the second half on it is not there where there is no end."""
    parts = [0.0, 0.5, 0.8, 0.95, 1.0]
    losses = [START + part * ((0.0 if end is None else end) - START) for part in parts]
    return {
        "step": [float(step) for step in STEPS],
        "seconds": [step * (0.01 + 0.001 * seed) for step in STEPS],
        "lr": [0.001] * len(STEPS),
        "gradient_evaluations": [float(step) for step in STEPS],
        "test_loss": [
            loss if end is not None or part < 0.9 else None for loss, part in zip(losses, parts, strict=True)
        ],
        "train_loss": [None, *losses[1:]],
    }


def ended(test_loss: float | Status, *, seed: int, **summary: Any) -> Result:
    """A result with this last loss, or with this bad end."""
    status = test_loss if isinstance(test_loss, Status) else Status.COMPLETED
    end = None if isinstance(test_loss, Status) else test_loss
    made = result(end, status=status, **summary)
    return Result(
        status=status,
        summary=made.summary,
        curve=curve(end, seed=seed),
        timing=made.timing,
        environment=made.environment,
    )


Losses = Sequence[float | Status]


def fill(store: Store, changes: Mapping[str, Any], losses: Losses, **summary: Any) -> list[str]:
    """Store a trial for each loss, from seed 0 on; returns their ids."""
    ids = []
    for seed, loss in enumerate(losses):
        asked = trial({**changes, "seed": seed})
        store.publish(asked, ended(loss, seed=seed, **summary))
        ids.append(asked.id)
    return ids


def optimizer(name: str, lr: float = 0.001, **others: Any) -> dict[str, Any]:
    """The changes to a config that make it this optimizer's."""
    return {"optimizer.name": name, "optimizer.lr": lr, **{f"optimizer.{key}": value for key, value in others.items()}}


def contests_of(store: Store) -> list[Contest]:
    """The contests of everything in a store."""
    return contests(tables.rows(store.index()), curves=Curves(store.read))


def analysis_of(*folders: Path) -> Analysis:
    """The analysis of everything in these folders."""
    return analyse(gather(folders, everything=True))


def normal(seeds: int, *, mean: float, deviation: float, offset: int = 0) -> list[float]:
    """Losses around a mean, the same each time: quantiles of a normal distribution in a mixed order."""
    quantiles = [math.sqrt(2.0) * _inverse_erf(2.0 * (i + 0.5) / seeds - 1.0) for i in range(seeds)]
    mixed = [quantiles[(i * 7 + offset) % seeds] for i in range(seeds)] if math.gcd(7, seeds) == 1 else quantiles
    return [mean + deviation * value for value in mixed]


def _inverse_erf(value: float) -> float:
    low, high = -6.0, 6.0
    for _ in range(80):
        middle = (low + high) / 2.0
        low, high = (middle, high) if math.erf(middle) < value else (low, middle)
    return (low + high) / 2.0
