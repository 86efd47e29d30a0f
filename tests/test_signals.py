"""Being asked to stop."""

import os
import signal
import threading
import time

import pytest

from optbench.signals import Signals


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 143), (signal.SIGUSR1, 143), (signal.SIGUSR2, 143)],
)
def test_a_signal_asks_to_stop(number: signal.Signals, code: int) -> None:
    before = {other: signal.getsignal(other) for other in signal.Signals if other != signal.SIGKILL}
    with Signals() as signals:
        assert not signals.is_requested
        assert signals.exit_code is None
        os.kill(os.getpid(), number)
        assert signals.is_requested
        assert not signals.is_urgent
    assert signals.exit_code == code
    assert {other: signal.getsignal(other) for other in before} == before


def test_a_second_ctrl_c_is_urgent_and_a_second_warning_is_not() -> None:
    with Signals() as signals:
        for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGTERM):
            os.kill(os.getpid(), number)
            assert not signals.is_urgent
        os.kill(os.getpid(), signal.SIGINT)
        assert signals.is_urgent
    assert signals.exit_code == 143, "the first one tells"


def test_the_end_of_its_time_asks_to_stop_and_is_no_signal() -> None:
    with Signals(seconds=0.05) as signals:
        assert not signals.is_requested
        time.sleep(0.06)
        assert signals.is_requested
        assert signals.exit_code is None


def test_a_signal_that_is_ignored_stays_so() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Signals() as signals:
            os.kill(os.getpid(), signal.SIGINT)
            assert not signals.is_requested
    finally:
        signal.signal(signal.SIGINT, before)


def test_in_a_thread_there_are_no_signals_but_there_is_time() -> None:
    found: list[bool] = []

    def work() -> None:
        with Signals(seconds=0.0) as signals:
            found.append(signals.is_requested)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [True]
