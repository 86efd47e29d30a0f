"""A clock that counts training alone."""

import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch


class Clock:
    """Seconds spent between `start()` and `stop()`; evaluation and logging happen while it stands still.

    Work on a GPU is queued, so the device is synchronised at both ends: a block of steps neither counts what was
    queued before it nor leaves out what it queued itself.
    """

    def __init__(self, device: torch.device) -> None:
        self._synchronize: Callable[[], None] = (
            (lambda: torch.cuda.synchronize(device)) if device.type == "cuda" else (lambda: None)
        )
        self._stopped_total = 0.0
        self._started: float | None = None
        self._seconds_per_step: list[float] = []

    @property
    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps of a clock that stands still."""
        return {"seconds": self._stopped_total, "seconds_per_step": list(self._seconds_per_step)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint."""
        self._stopped_total = state["seconds"]
        self._seconds_per_step = list(state["seconds_per_step"])

    def start(self) -> None:
        """Go on counting."""
        self._synchronize()
        self._started = time.perf_counter()

    def stop(self, *, num_steps: int) -> None:
        """Stand still, after a block of `num_steps` steps."""
        assert self._started is not None, "the clock was not running"
        self._synchronize()
        seconds = time.perf_counter() - self._started
        self._started = None
        self._stopped_total += seconds
        self._seconds_per_step.append(seconds / num_steps)

    @contextmanager
    def pause(self) -> Iterator[None]:
        """Not count what is done meanwhile, in the middle of a block."""
        assert self._started is not None, "the clock was not running"
        self._synchronize()
        paused = time.perf_counter()
        yield
        self._synchronize()
        self._started += time.perf_counter() - paused

    @property
    def seconds(self) -> float:
        """Seconds counted so far, those of the block under way included."""
        return self._stopped_total + (0.0 if self._started is None else time.perf_counter() - self._started)

    @property
    def step_seconds(self) -> float | None:
        """Seconds per step: the median over blocks, without the first where there are others. None before a step."""
        blocks = self._seconds_per_step[1:] or self._seconds_per_step
        return statistics.median(blocks) if blocks else None
