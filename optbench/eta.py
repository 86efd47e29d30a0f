"""How long the rest of a sweep takes, from the times of what has run."""

from collections import Counter, defaultdict
from dataclasses import dataclass

from optbench.trial import Trial

Kind = tuple[str, str]


@dataclass
class _Running:
    kind: Kind
    since: float
    part: float = 0.0


class Eta:
    """Seconds that are left: each trial is taken to last as those of its task and optimizer did, on as many slots.

    Args:
        num_trials: to be run in all.
        num_slots: trials at a time.
    """

    def __init__(self, *, num_trials: int, num_slots: int) -> None:
        self._num_trials = num_trials
        self._num_slots = max(1, min(num_slots, num_trials))
        self._running: dict[str, _Running] = {}
        self._seconds: defaultdict[Kind, float] = defaultdict(float)
        self._num_done: Counter[Kind] = Counter()

    def started(self, slot: str, trial: Trial, *, now: float) -> None:
        """A trial begins on a slot; `now` is a monotonic clock's."""
        self._running[slot] = _Running(kind=(trial.task.name, trial.optimizer.name), since=now)

    def progressed(self, slot: str, part: float) -> None:
        """So much of the trial on this slot is done, from 0 to 1."""
        if slot in self._running:
            self._running[slot].part = part

    def finished(self, slot: str, *, now: float) -> None:
        """The trial on this slot has ended."""
        if (running := self._running.pop(slot, None)) is not None:
            self._seconds[running.kind] += now - running.since
            self._num_done[running.kind] += 1

    def seconds_left(self, *, num_done: int, now: float) -> float | None:
        """How long the rest takes; None where nothing says yet how long a trial lasts.

        Args:
            num_done: trials that have ended.
            now: a monotonic clock's.
        """
        lasts = {kind: self._seconds[kind] / count for kind, count in self._num_done.items()}
        for running in self._running.values():
            if running.part > 0.0:
                lasts.setdefault(running.kind, (now - running.since) / running.part)
        if not lasts:
            return None
        mean = sum(lasts.values()) / len(lasts)
        of_running = [
            max(lasts.get(running.kind, mean) - (now - running.since), 0.0) for running in self._running.values()
        ]
        num_waiting = max(self._num_trials - num_done - len(self._running), 0)
        work = sum(of_running) + num_waiting * mean
        return max(work / self._num_slots, max(of_running, default=0.0))
