"""All pictures of an analysis, by task; where there are many, drawn by several processes."""

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

from optbench.aggregate import Aggregate
from optbench.contest import Contest
from optbench.curves import Curves
from optbench.pictures import best_of_k, heat_map, learning, lr_free, memory, profile, ranks, sensitivity, trade_off
from optbench.pictures.drawing import Palette
from optbench.pictures.picture import Picture

# Another process takes two seconds to start.
MIN_FOR_PROCESSES = 15
MAX_PROCESSES = 4


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """What may be drawn.

    Attributes:
        title: what it is, for those who wait.
        draw: gives the pictures; none where there is nothing to show.
    """

    title: str
    draw: Callable[[], list[Picture]]


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What the pictures are of; it goes to other processes.

    Attributes:
        contests: one for each task.
        slugs: of each contest by its task, a name for files.
        aggregate: over tasks; None where they have too little in common.
        curves: of the trials.
    """

    contests: Sequence[Contest]
    slugs: Mapping[str, str]
    aggregate: Aggregate | None
    curves: Curves

    def drawings(self) -> list[Drawing]:
        """What there is to draw; of each task what matters most comes first."""
        names = dict.fromkeys(contender.optimizer for contest in self.contests for contender in contest.contenders)
        palette = Palette(list(names))
        found = [one for contest in self.contests for one in self._of(contest, palette)]
        together = self.aggregate
        if together is not None:
            found.append(Drawing(title="ranks", draw=lambda: ranks.pictures(together, palette=palette)))
            found.append(Drawing(title="profiles", draw=lambda: profile.pictures(together, palette=palette)))
        return found

    def _of(self, contest: Contest, palette: Palette) -> Sequence[Drawing]:
        slug, curves = self.slugs[contest.task], self.curves
        kinds: dict[str, Callable[[], list[Picture]]] = {
            "curves": lambda: learning.pictures(contest, slug=slug, curves=curves, palette=palette),
            "learning rates": lambda: sensitivity.pictures(contest, slug=slug, palette=palette),
            "weight decay": lambda: heat_map.pictures(contest, slug=slug),
            "trade-offs": lambda: trade_off.pictures(contest, slug=slug, palette=palette),
            "best of k": lambda: best_of_k.pictures(contest, slug=slug, palette=palette),
            "estimated rates": lambda: lr_free.pictures(contest, slug=slug, curves=curves, palette=palette),
            "memory": lambda: memory.pictures(contest, slug=slug),
        }
        return [Drawing(title=f"{kind} of {contest.task}", draw=draw) for kind, draw in kinds.items()]


def draw(subject: Subject, *, progress: Callable[[str, int, int], None]) -> Iterator[Picture]:
    """Draw all of it, in the order of `Subject.drawings`.

    Args:
        subject: what to draw.
        progress: told what is being drawn, how many parts are done and how many there are.
    """
    asked = subject.drawings()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if cores == 1 or len(asked) < MIN_FOR_PROCESSES:
        for done, drawing in enumerate(asked):
            progress(f"drawing {drawing.title}", done, len(asked))
            yield from drawing.draw()
        return
    with ProcessPoolExecutor(
        min(cores, MAX_PROCESSES), multiprocessing.get_context("spawn"), initializer=_receive, initargs=(subject,)
    ) as pool:
        for done, (drawing, drawn) in enumerate(zip(asked, pool.map(_draw, range(len(asked))), strict=True)):
            progress(f"drawing {drawing.title}", done, len(asked))
            yield from drawn


# Of a process that draws.
_received: list[Drawing] = []


def _receive(subject: Subject) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever started it ends it
    _received.extend(subject.drawings())


def _draw(place: int) -> list[Picture]:
    return _received[place].draw()
