"""Samplers: which point of a search to try next, and whether one is worth going on with."""

import hashlib
import json
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from optbench.measurement import Status
from optbench.search import Dimension, Point, Study

# So many random points that have all been tried: there is no other, or as good as none.
NUM_DRAWS = 1000


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a point ended, over all its seeds.

    Attributes:
        status: of its trials, the most telling one.
        value: the mean of the metric at their ends; None where one of them has none.
        seconds: of training, of all of them together.
    """

    status: Status
    value: float | None
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Told:
    """A point that has ended."""

    number: int
    point: Point
    outcome: Outcome


class Sampler(Protocol):
    """Chooses the points of one study, and hears how each ended.

    What it knows survives its process, or the next one chooses the same points in the same order.
    """

    @property
    def asked(self) -> Mapping[int, Point]:
        """The points that were chosen and have not ended yet, by number, whichever process chose them."""
        ...

    @property
    def told(self) -> Mapping[str, Told]:
        """The points that have ended, by `spelling`, each as it ended the last time."""
        ...

    @property
    def num_points(self) -> int:
        """How many points were chosen, ended or not."""
        ...

    def ask(self, at_most: int | None) -> int | None:
        """Choose a point that was not chosen before, and give its number.

        Args:
            at_most: as many points are to be chosen in all.

        Returns:
            None where there are as many, or where no other is found: then a search is over.
        """
        ...

    def ask_again(self, told: Told) -> None:
        """Have a point that has ended among `asked` once more, below a new number."""
        ...

    def should_stop(self, number: int, *, step: int, value: float) -> bool:
        """Whether the trial of this point, with this value of the metric at this step, is not worth going on with."""
        ...

    def tell(self, number: int, outcome: Outcome) -> None:
        """This point has ended; nothing happens where another process has told so before."""
        ...


class RandomSampler:
    """Points at random: the k-th is the same in every process, so that nothing has to be noted.

    Args:
        study: what is searched.
        base: its config where nothing is searched.
        seed: of the points.
    """

    def __init__(self, study: Study, *, base: Mapping[str, Any], seed: int) -> None:
        self.asked: dict[int, Point] = {}
        self.told: dict[str, Told] = {}
        self._seen: set[str] = set()
        self._points = random_points(study, base=base, seed=seed)

    @property
    def num_points(self) -> int:
        """How many points were chosen."""
        return len(self._seen)

    def ask(self, at_most: int | None) -> int | None:
        """The next one."""
        if at_most is not None and len(self._seen) >= at_most:
            return None
        point = unseen(self._points, self._seen)
        if point is None:
            return None
        number = self.num_points
        self._seen.add(spelling(point))
        self.asked[number] = point
        return number

    def ask_again(self, told: Told) -> None:
        """Never needed: a process that begins has been told nothing."""

    def should_stop(self, number: int, *, step: int, value: float) -> bool:  # noqa: ARG002
        """Every point is tried to its end."""
        return False

    def tell(self, number: int, outcome: Outcome) -> None:
        """Keep it for those who ask."""
        point = self.asked.pop(number)
        self.told[spelling(point)] = Told(number=number, point=point, outcome=outcome)


def make_point(study: Study, *, base: Mapping[str, Any], choose: Callable[[Dimension], Any]) -> dict[str, Any]:
    """A point: a value for each key whose condition holds.

    Args:
        study: what is searched.
        base: its config where nothing is searched, for the value of a key that the point leaves as it is.
        choose: the value of a key.
    """
    point: dict[str, Any] = {}
    for dimension in study.dimensions:
        if dimension.counts(point, base):
            point[dimension.key] = choose(dimension)
    return point


def random_points(study: Study, *, base: Mapping[str, Any], seed: int) -> Iterator[dict[str, Any]]:
    """Random points without end; the same ones for the same study and seed."""
    number = 0
    while True:
        generator = random.Random(derived(seed, f"{study.name}/{number}"))

        def choose(dimension: Dimension, generator: random.Random = generator) -> Any:
            return dimension.values.sample(generator)

        yield make_point(study, base=base, choose=choose)
        number += 1


def unseen(points: Iterator[dict[str, Any]], seen: set[str]) -> dict[str, Any] | None:
    """The first of these points that has not been seen; None where that would take too long."""
    for _ in range(NUM_DRAWS):
        point = next(points)
        if spelling(point) not in seen:
            return point
    return None


def spelling(point: Point) -> str:
    """A point as text, equal for equal points."""
    return json.dumps(point, sort_keys=True)


def derived(seed: int, name: str) -> int:
    """A 32-bit seed for what has this name."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:4], "big")
