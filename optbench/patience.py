"""Calls that may hang, such as those to a network: waited for so long and no longer."""

import queue
import threading
from collections.abc import Callable
from typing import NoReturn, TypeVar

T = TypeVar("T")


def within(seconds: float, call: Callable[[], T]) -> T:
    """What the call returns, or raises.

    It runs on a thread of its own. If it does not come back in time, that thread is left behind, and ends with the
    process at the latest.

    Args:
        seconds: to wait for it.
        call: made once.

    Raises:
        TimeoutError: it has not come back.
    """
    outcome: queue.SimpleQueue[Callable[[], T]] = queue.SimpleQueue()

    def run() -> None:
        try:
            result = call()
        except BaseException as error:  # to be raised where it is waited for
            outcome.put(_raising(error))
        else:
            outcome.put(lambda: result)

    threading.Thread(target=run, name="within", daemon=True).start()
    try:
        found = outcome.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError(f"no answer for {seconds:g} seconds") from None
    return found()


def _raising(error: BaseException) -> Callable[[], NoReturn]:
    def fail() -> NoReturn:
        raise error

    return fail
