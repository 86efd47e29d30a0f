"""Schedules beside the formulas that they are written down with."""

import math
from collections.abc import Callable, Mapping
from typing import Any, Literal

from optbench.catalogue import entry, names
from optbench.component import component
from optbench.components import build_schedule
from optbench.errors import unknown

NUM_STEPS = 1000
Formula = Literal["step", "cosine", "linear", "inverse_sqrt", "warmup", "vaswani", "palm"]

# The factor of the peak rate at step t of 1000, by the formula as it is written down in steps.
FORMULAS: Mapping[Formula, Callable[[int], float]] = {
    "step": lambda t: 0.1 ** (t // 250),
    "cosine": lambda t: 0.5 * (1.0 + math.cos(math.pi * t / NUM_STEPS)),
    "linear": lambda t: 1.0 - t / NUM_STEPS,
    "inverse_sqrt": lambda t: (t + 1) ** -0.5,
    "warmup": lambda t: min(t / 100, 1.0),
    "vaswani": lambda t: min(t / 100, (max(t, 1) / 100) ** -0.5),
    "palm": lambda t: min(1.0, (max(t, 1) / 40) ** -0.5),
}


def schedule_difference(*, schedule: str, changes: Mapping[str, Any], formula: Formula) -> float:
    """The largest difference from a formula over 1000 steps, in parts of the peak rate.

    Args:
        schedule: in the catalogue.
        changes: values other than its YAML gives.
        formula: by its key in `FORMULAS`.
    """
    found = entry("schedule", schedule)
    if found is None:
        raise unknown("schedule", schedule, names("schedule"))
    built = build_schedule(component({**found.config, **changes}, group="schedule"))
    return max(abs(built(t / NUM_STEPS) - FORMULAS[formula](t)) for t in range(NUM_STEPS))
