"""Names beside points, so placed that they cover neither points nor each other."""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

_MARKER = 5.0  # points from the middle of a marker to what may stand beside it
_NUM_TURNS = 16
_DISTANCES = (0.0, 8.0, 16.0, 26.0, 38.0, 52.0)

Box = tuple[float, float, float, float]


@dataclass(frozen=True, kw_only=True)
class Label:
    """What is written beside a point.

    Attributes:
        text: in one line.
        size: of the text, width and height in points.
        anchor: the point, in points from the lower left corner of the axes.
        bar: from where to where a bar through the point goes up.
    """

    text: str
    size: tuple[float, float]
    anchor: tuple[float, float]
    bar: tuple[float, float]


def places(
    labels: Sequence[Label], *, width: float, height: float, lines: Sequence[Box] = ()
) -> list[tuple[float, float]]:
    """The middle of the left edge of each text, in points from the lower left corner of the axes.

    For each label in turn the place next to its point is taken that covers least of what is there.

    Args:
        labels: in the order in which they choose.
        width: of the axes, in points.
        height: the same upwards.
        lines: level and upright ones, which texts should not cross: left, lower, right and upper end.
    """
    taken = [_marker(label) for label in labels]
    thin = [(label.anchor[0], label.bar[0], label.anchor[0], label.bar[1]) for label in labels]
    bars = [(left - 1.0, low - 1.0, right + 1.0, high + 1.0) for left, low, right, high in [*thin, *lines]]
    found = []
    for label in labels:
        best: tuple[float, Box] | None = None
        for distance, box in _candidates(label):
            if best is not None and best[0] <= 0.5 * distance:
                break
            outside = max(0.0, -box[0], -box[1], box[2] - width, box[3] - height)
            covered = sum(_shared(box, other) for other in taken) + 0.5 * sum(_shared(box, bar) for bar in bars)
            penalty = covered + 1000.0 * (outside > 0.0) + 0.5 * distance
            if best is None or penalty < best[0] - 1e-9:
                best = penalty, box
        assert best is not None
        taken.append(best[1])
        found.append((best[1][0], (best[1][1] + best[1][3]) / 2.0))
    return found


def _marker(label: Label) -> Box:
    x, y = label.anchor
    return x - _MARKER, y - _MARKER, x + _MARKER, y + _MARKER


def _candidates(label: Label) -> Iterator[tuple[float, Box]]:
    """Places around the point, the nearest first and to its right first, each with its distance."""
    x, y = label.anchor
    width, height = label.size
    for distance, turn in itertools.product(_DISTANCES, range(_NUM_TURNS)):
        angle = 2.0 * math.pi * turn / _NUM_TURNS * (1 if turn % 2 else -1)
        across = x + math.cos(angle) * (_MARKER + distance + width / 2.0)
        upwards = y + math.sin(angle) * (_MARKER + distance + height / 2.0)
        box = (across - width / 2.0, upwards - height / 2.0, across + width / 2.0, upwards + height / 2.0)
        yield distance, box


def _shared(one: Box, other: Box) -> float:
    """The area that two boxes share."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return width * height if width > 0.0 and height > 0.0 else 0.0
