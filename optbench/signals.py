"""Being asked to stop: by a signal, or because the time of the sweep is over."""

import signal
import threading
import time
from types import FrameType, TracebackType
from typing import Any, Self

# Slurm announces preemption and the end of a job's time by TERM or, as asked, by one of the USR signals.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 143


class Signals:
    """While it is entered, a first signal asks to stop, a second Ctrl-C to stop at once; a third one raises.

    Args:
        seconds: after so many, too, the sweep is asked to stop; None never.

    Attributes:
        received: the first signal.
    """

    def __init__(self, *, seconds: float | None = None) -> None:
        self.received: signal.Signals | None = None
        self._is_urgent = False
        self._deadline = None if seconds is None else time.monotonic() + seconds
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():  # Python lets no other thread handle signals
            for number in SIGNALS:
                # Who starts us in the background ignores some for us: so it stays.
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    @property
    def is_requested(self) -> bool:
        """Whether a signal came, or the time is over."""
        return self.received is not None or self.is_over

    @property
    def is_over(self) -> bool:
        """Whether the time of the sweep is over."""
        return self._deadline is not None and time.monotonic() >= self._deadline

    @property
    def is_urgent(self) -> bool:
        """Whether Ctrl-C came after another signal."""
        return self._is_urgent

    @property
    def exit_code(self) -> int | None:
        """What the process ends with after a signal; None where none came."""
        if self.received is None:
            return None
        return EXIT_INTERRUPTED if self.received is signal.SIGINT else EXIT_TERMINATED

    def _handle(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        if self.received is None:
            self.received = signal.Signals(number)
        elif number == signal.SIGINT:
            if self._is_urgent:  # what runs in this very process may not hear of anything else
                raise KeyboardInterrupt
            self._is_urgent = True
