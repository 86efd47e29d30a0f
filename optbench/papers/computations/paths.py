"""How far apart two optimizers go that are led by the same gradients."""

from collections.abc import Mapping
from typing import Any

from optbench.papers.computations.trace import on_tape
from optbench.parity import compare, record


def path_difference(
    *, optimizer: str, changes: Mapping[str, Any], against: str, against_changes: Mapping[str, Any]
) -> float:
    """The largest difference over 200 steps of recorded gradients, relative to the way that the first has gone.

    Args:
        optimizer: in the catalogue.
        changes: values other than its YAML gives.
        against: another one, or the same with other changes.
        against_changes: of it.
    """
    comparison = compare(on_tape(optimizer, changes), on_tape(against, against_changes), record())
    return max(difference.relative for difference in comparison.differences)
