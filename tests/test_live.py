"""What people see while a sweep runs."""

import io

import pytest
from rich.console import Console

from optbench import live
from optbench.eta import Eta
from optbench.live import Progress, duration
from optbench.measurement import Measurement, Status
from tests.handmade import trial

ONE, TWO = trial({"seed": 1, "budget.num_steps": 100}), trial({"seed": 2, "budget.num_steps": 100})


def measurement(step: int, loss: float = 0.5) -> Measurement:
    return Measurement(
        step=step, seconds=step / 10, lr=0.1, gradient_evaluations=step, metrics={"train_loss": loss, "test_loss": 1.0}
    )


def page(*, terminal: bool) -> tuple[Console, io.StringIO]:
    file = io.StringIO()
    return Console(file=file, force_terminal=terminal, width=140, color_system=None), file


def test_a_terminal_shows_each_slot_with_its_trial_step_and_loss() -> None:
    console, _ = page(terminal=True)
    progress = Progress(num_trials=5, num_slots=2, page=console)
    progress.started("cpu 0", ONE)
    progress.started("cpu 1", TWO)
    progress.measured("cpu 0", measurement(25, loss=0.25))
    progress.progressed("cpu 1", 60, 0.125)
    progress.finished("cpu 2", trial({"seed": 3}), Status.CRASHED, reason="a fault", log=None)
    with console.capture() as capture:
        console.print(progress._picture())
    shown = capture.get()
    assert f"{ONE.title}, step 25/100, loss 0.25" in shown
    assert f"{TWO.title}, step 60/100, loss 0.125" in shown
    assert "1 done, 1 failed, 4 left" in shown


def test_a_file_gets_a_line_for_each_trial_and_one_every_so_often(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(live.time, "monotonic", lambda: now[0])
    console, file = page(terminal=False)
    with Progress(num_trials=3, num_slots=1, page=console) as progress:
        progress.started("cpu 0", ONE)
        for second in range(1, 65):
            now[0] = float(second)
            progress.progressed("cpu 0", second, 0.5)
        progress.finished("cpu 0", ONE, Status.COMPLETED, reason=None, log=None)
    lines = file.getvalue().splitlines()
    assert [line for line in lines if "step 30/100" in line]
    assert [line for line in lines if "step 60/100" in line]
    assert len([line for line in lines if "step" in line]) == 2
    assert lines[-1] == f"[1/3] {ONE.title}: completed, 2 min 8 s left"


def test_a_failing_trial_shows_its_reason_and_its_log_at_once() -> None:
    console, file = page(terminal=False)
    progress = Progress(num_trials=2, num_slots=1, page=console)
    progress.started("cpu 0", ONE)
    reason = "ValueError: [bold]no[/bold]\nand more"
    progress.finished("cpu 0", ONE, Status.CRASHED, reason=reason, log="results/default/logs/1.log")
    first = file.getvalue().splitlines()[0]
    assert first == f"crashed {ONE.title}: ValueError: [bold]no[/bold] (log: results/default/logs/1.log)"


def test_time_left_comes_from_trials_of_the_same_kind() -> None:
    eta = Eta(num_trials=5, num_slots=2)
    assert eta.seconds_left(num_done=0, now=0.0) is None
    eta.started("a", ONE, now=0.0)
    eta.progressed("a", 0.5)
    assert eta.seconds_left(num_done=0, now=5.0) == pytest.approx((5.0 + 4 * 10.0) / 2)
    eta.finished("a", now=10.0)
    eta.started("a", TWO, now=10.0)
    eta.started("b", TWO, now=10.0)
    assert eta.seconds_left(num_done=1, now=14.0) == pytest.approx((6.0 + 6.0 + 2 * 10.0) / 2)


def test_the_last_trial_takes_as_long_as_it_takes() -> None:
    eta = Eta(num_trials=2, num_slots=2)
    eta.started("a", ONE, now=0.0)
    eta.finished("a", now=10.0)
    eta.started("b", TWO, now=2.0)
    assert eta.seconds_left(num_done=1, now=5.0) == pytest.approx(7.0)
    assert eta.seconds_left(num_done=1, now=50.0) == 0.0


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.4, "0 s"), (59.4, "59 s"), (200.0, "3 min 20 s"), (7500.0, "2 h 5 min")]
)
def test_durations_are_in_words(seconds: float, words: str) -> None:
    assert duration(seconds) == words
