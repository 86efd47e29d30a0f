"""The pictures of a reproduction: how far each figure is off, and what the source draws, drawn again beside it."""

from collections.abc import Callable, Mapping

from optbench.papers import drawing_curves, drawing_departures, drawing_lines, drawing_maps
from optbench.papers.outcome import Outcome
from optbench.papers.paper import Figure, FigureKind
from optbench.pictures.picture import Picture

_KINDS: Mapping[FigureKind, Callable[[Outcome, Figure], Picture | None]] = {
    "lines": drawing_lines.picture,
    "curves": drawing_curves.picture,
    "heat_map": drawing_maps.picture,
}


def pictures(outcome: Outcome) -> list[Picture]:
    """The departures of all cells, and the figures of the paper; what there is nothing of is left out."""
    drawn = [_KINDS[figure.kind](outcome, figure) for figure in outcome.paper.figures]
    return [*drawing_departures.pictures(outcome), *(picture for picture in drawn if picture is not None)]
