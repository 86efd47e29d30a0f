"""The cost tables of a report: what a step takes of memory and of time, measured alone."""

from collections.abc import Callable, Sequence

import pandas as pd

from optbench import cost_cells
from optbench.cost import Cost
from optbench.sheet import Sheet


def cost_sheets(costs: Sequence[Cost], *, slug: Callable[[str], str]) -> list[Sheet]:
    """Memory and time for each task and device; without those that nothing is known of.

    Args:
        costs: a cost that is there twice for one device counts once, the first of them.
        slug: a name of files for a heading.
    """
    kept = {(cost.id, str(cost.environment.get("device"))): cost for cost in reversed(costs)}
    own = [cost for cost in costs if kept[cost.id, str(cost.environment.get("device"))] is cost]
    found = []
    for heading, group in cost_cells.grouped(own).items():
        notes = [*cost_cells.notes(group), *cost_cells.warnings(group)]
        numbers = cost_cells.numbers(group)
        name = slug(heading)
        if any(cost.memory or cost.predicted for cost in group):
            words = cost_cells.memory_words(group).astype(str)
            keys = _keys(words, numbers, _MEMORY)
            title = f"{heading}: memory of a step"
            found.append(
                Sheet(name=f"memory_{name}", title=title, words=words, keys=keys, numbers=numbers, notes=notes)
            )
        if any(cost.time for cost in group):
            words = cost_cells.time_words(group).astype(str)
            keys = _keys(words, numbers, _TIME)
            title = f"{heading}: time of a step"
            found.append(Sheet(name=f"time_{name}", title=title, words=words, keys=keys, numbers=numbers, notes=notes))
    return found


# Columns of words by what they begin with, and the columns of numbers that they are sorted by.
_MEMORY = {
    "parameters + state": "",
    "parameters": "memory.parameter_bytes",
    "frozen": "memory.frozen_bytes",
    "gradients": "memory.gradient_bytes",
    "state in": "",
    "state": "memory.state_bytes",
    "activations": "memory.activation_bytes",
    "in step()": "memory.transient_bytes",
    "peak (measured)": "memory.peak_bytes",
    "peak (predicted)": "predicted.peak_bytes",
    "reserved": "memory.reserved_bytes",
    "device": "memory.device_bytes",
}
_TIME = {
    "step (ms)": "time.step.median",
    "data (ms)": "time.phases.data.median",
    "forward (ms)": "time.phases.forward.median",
    "backward (ms)": "time.phases.backward.median",
    "optimizer (ms)": "time.phases.optimizer.median",
    "optimizer's share": "optimizer_share",
    "step /": "time.ratio.median",
    "its optimizer /": "time.optimizer_ratio.median",
    "first step": "time.first_step_seconds",
    "compilation": "time.compile_seconds",
    "energy": "time.joules_per_step",
}


def _keys(words: pd.DataFrame, numbers: pd.DataFrame, columns: dict[str, str]) -> pd.DataFrame:
    """What each cell is sorted by: the figure where there is one, else what it says."""
    keys = {}
    for name in words:
        source = next((column for start, column in columns.items() if str(name).startswith(start)), "")
        values = numbers[source].tolist() if source in numbers else words[name].tolist()
        keys[name] = [None if value != value else value for value in values]
    return pd.DataFrame(keys, dtype=object)
