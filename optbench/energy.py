"""The energy that a GPU takes, by its own counter."""

import time
from types import TracebackType
from typing import Self

import torch

from optbench.nvml import gpu

# The counter goes on about ten times a second: a shorter stretch would be known worse than to a twentieth.
MIN_SECONDS = 2.0


class Energy:
    """Joules that a GPU takes while this context lasts: all of the card's, whoever uses it.

    Args:
        device: the GPU.

    Attributes:
        is_known: whether the GPU has a counter (NVIDIA's have since Volta).
        joules: taken so far; None where there is no counter, or over less than `MIN_SECONDS`.
    """

    def __init__(self, device: torch.device) -> None:
        self.joules: float | None = None
        self._gpu = gpu(device)
        self.is_known = self._read() is not None
        self._started = 0.0
        self._before: int | None = None

    def __enter__(self) -> Self:
        self._before, self._started = self._read(), time.monotonic()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        after, seconds = self._read(), time.monotonic() - self._started
        if self._before is not None and after is not None and seconds >= MIN_SECONDS:
            self.joules = (after - self._before) / 1000.0

    def _read(self) -> int | None:
        """Millijoules since the driver was loaded."""
        if self._gpu is None:
            return None
        value = self._gpu.ask("nvmlDeviceGetTotalEnergyConsumption")
        return None if value is None else int(value)
