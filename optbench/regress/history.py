"""The nights of one suite on one machine, and what each metric came to in each of them."""

import json
import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from optbench.regress import night as nights
from optbench.regress.change_points import ChangePoint, change_points, exact_changes
from optbench.regress.findings import Answer, Kind
from optbench.regress.judging import FIGURES
from optbench.regress.losses import LOSS
from optbench.regress.night import Night
from optbench.regress.readings import Readings
from optbench.regress.rounds import TIME, is_on_gpu, value_of

MOST_NIGHTS = 120
# Of a loss: less is what another version of a library does to the last digits.
LEAST_LOSS_EFFECT = 0.005


@dataclass(frozen=True, kw_only=True)
class Point:
    """What a metric came to in one night.

    Attributes:
        night: its number, from 1: its place among all nights of the history.
        started: when that was.
        value: whole numbers, a mean over the seeds, or multiples of the calibration kernel. None where all diverged.
        is_partial: a seed diverged, so that the mean is of the others, and no value for the search of changes.
    """

    night: int
    started: str
    value: float | None
    is_partial: bool = False


@dataclass(frozen=True, kw_only=True)
class Track:
    """One metric over the nights: those in which it was asked as in the last one.

    Attributes:
        kind: the class of the metric.
        subject: what it is of.
        figure: which figure, in words, as findings have it.
        points: the earliest first.
    """

    kind: Kind
    subject: str
    figure: str
    points: Sequence[Point]

    @property
    def name(self) -> str:
        """Of the metric, as findings have it."""
        return f"{self.figure} of {self.subject}"

    @property
    def whole(self) -> list[tuple[Point, float]]:
        """The points that are of all seeds, each with its value."""
        return [(point, point.value) for point in self.points if point.value is not None and not point.is_partial]

    def changes(self) -> list[tuple[Point, ChangePoint]]:
        """Where it changed, each with the first night that was different."""
        values = [value for _, value in self.whole]
        if self.kind == "exact":
            found = exact_changes(values)
        elif self.kind == "loss":
            found = change_points(values, least_effect=LEAST_LOSS_EFFECT)
        else:
            found = change_points(values)
        return [(self.whole[change.place][0], change) for change in found]


@dataclass(frozen=True, kw_only=True)
class History:
    """The nights that can be held beside each other.

    Attributes:
        suite: its name.
        machine: the fingerprint that all nights have.
        nights: the earliest first.
        num_unreadable: files that are no night of ours.
        num_elsewhere: nights of another machine or suite.
    """

    suite: str
    machine: str
    nights: Sequence[Night] = ()
    num_unreadable: int = 0
    num_elsewhere: int = 0

    def joined(self, night: Night) -> "History":
        """With this night, in place of the one that started at the same moment if there is one."""
        others = [other for other in self.nights if other.started != night.started]
        return replace(self, nights=sorted([*others, night], key=lambda one: one.started))

    def failed(self) -> list[Night]:
        """The nights in which a metric was worse."""
        return [night for night in self.nights if night.count(Answer.FAIL)]

    def tracks(self) -> list[Track]:
        """Every metric of the last night that has a value in it or before."""
        return [*self._tracks("exact"), *self._tracks("loss"), *self._tracks("time")]

    def _tracks(self, kind: Kind) -> Iterator[Track]:
        if not self.nights:
            return
        last = self.nights[-1].readings
        figures_of = _FIGURES[kind]
        found: dict[tuple[str, str], list[Point]] = {}
        for number, night in enumerate(self.nights, 1):
            for subject, figure, value, is_partial in figures_of(night.readings, last):
                if night.readings.asked.get(subject) == last.asked.get(subject):
                    point = Point(night=number, started=night.started, value=value, is_partial=is_partial)
                    found.setdefault((subject, figure), []).append(point)
        for (subject, figure), points in found.items():
            yield Track(kind=kind, subject=subject, figure=figure, points=points)


def read(folder: Path, *, suite: str, machine: str, most: int = MOST_NIGHTS) -> History:
    """The last nights of a suite on a machine.

    Args:
        folder: `results/regress/<suite>/runs`; where it is not there, there are no nights.
        suite: its name.
        machine: the fingerprint.
        most: nights; the files go by the moment of the start, so that the last ones are the last by name.
    """
    found: list[Night] = []
    num_unreadable = num_elsewhere = 0
    for path in sorted(folder.glob("*.json"), reverse=True):
        if len(found) == most:
            break
        night = _night(path)
        if night is None:
            num_unreadable += 1
        elif (night.suite, night.machine) != (suite, machine):
            num_elsewhere += 1
        else:
            found.append(night)
    return History(
        suite=suite,
        machine=machine,
        nights=sorted(found, key=lambda night: night.started),
        num_unreadable=num_unreadable,
        num_elsewhere=num_elsewhere,
    )


def _night(path: Path) -> Night | None:
    """None where the file is not to be read, or holds something else."""
    try:
        night = nights.from_json(json.loads(path.read_bytes()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    texts = (night.suite, night.machine, night.started)
    return night if all(isinstance(text, str) for text in texts) else None


_Figures = Iterator[tuple[str, str, float | None, bool]]  # subject, figure, value, whether it is partial


def _exact(readings: Readings, _: Readings) -> _Figures:
    for subject, figures in readings.exact.items():
        for name, value in figures.items():
            yield subject, FIGURES.get(name, name.replace("_", " ")), value, False


def _losses(readings: Readings, last: Readings) -> _Figures:
    """Means over the seeds of the last night: those of other seeds are other figures."""
    for subject, finals in readings.finals.items():
        seeds = last.finals.get(subject) or finals
        own = [finals[seed].loss for seed in seeds if seed in finals]
        known = [loss for loss in own if loss is not None and math.isfinite(loss)]
        if own:
            yield subject, LOSS, math.fsum(known) / len(known) if known else None, len(known) < len(seeds)


def _times(readings: Readings, _: Readings) -> _Figures:
    """The figure of a process as it is judged, in multiples of the kernel: seconds drift with the clock."""
    on_gpu = is_on_gpu(readings)
    for subject, samples in readings.samples.items():
        values = [value_of(sample, on_gpu=on_gpu, in_kernels=True) for sample in samples]
        if known := [value for value in values if math.isfinite(value)]:
            yield subject, TIME, statistics.median(known), False


_FIGURES: Mapping[Kind, Callable[[Readings, Readings], _Figures]] = {"exact": _exact, "loss": _losses, "time": _times}
