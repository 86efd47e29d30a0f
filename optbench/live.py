"""What people see while a sweep runs: a line for each slot, or plain lines where the output is no terminal."""

import time
from collections.abc import Sequence
from contextlib import suppress
from types import TracebackType
from typing import Self

from rich.console import Console, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table

from optbench.console import console, warn
from optbench.eta import Eta
from optbench.exploration import Found
from optbench.measurement import Measurement, Status
from optbench.plan import Plan
from optbench.settings import words
from optbench.store import Store
from optbench.trial import Trial
from optbench.tuning import TuningSource

SECONDS_BETWEEN_LINES = 30.0


def announce(made: Plan) -> None:
    """What is going to run, and what need not."""
    num_jobs, num_stored = len(made.jobs), len(made.trials) - len(made.jobs)
    what = f"{num_jobs} trial{'s' * (num_jobs > 1)} to run" if num_jobs else "nothing to run"
    stored = f", {num_stored} stored already" if num_stored else ""
    merged = f", {made.num_merged} duplicate{'s' * (made.num_merged > 1)} merged" if made.num_merged else ""
    console().print(escape(f"{made.store.folder}: {what}{stored}{merged}."), soft_wrap=True)


def announce_search(store: Store, source: TuningSource) -> None:
    """What is going to be searched."""
    studies = [found.study for found in source.found]
    num_stored = sum(found.num_settings * found.num_seeds for found in source.found)
    stored = f", {num_stored} trial{'s' * (num_stored > 1)} stored already" if num_stored else ""
    console().print(
        escape(f"{store.folder}: {len(studies)} stud{'ies' if len(studies) > 1 else 'y'} to search{stored}."),
        soft_wrap=True,
    )


def show_found(found: Sequence[Found]) -> None:
    """The best point of each study, and what finding it took."""
    for study in found:
        spent = f"{study.num_settings} settings, {study.num_pruned} pruned, {study.num_failed} failed"
        best = "none"
        if study.best is not None and study.best_value is not None:
            point = " ".join(words(study.best))
            best = f"{point or 'as its file has it'}, {study.metric} {study.best_value:.4g}"
        console().print(
            escape(f"{study.study}: best {best} ({spent}; {duration(study.seconds)} of training)"), soft_wrap=True
        )


class Progress:
    """Watches a sweep: per slot the trial with its step and loss, and how many are done, failed and left.

    Args:
        num_trials: to be run.
        num_slots: trials at a time.
        page: where to; None is standard output.
    """

    def __init__(self, *, num_trials: int, num_slots: int, page: Console | None = None) -> None:
        self._console = page or console()
        self._num_trials = num_trials
        self._num_done = 0
        self._num_failed = 0
        self._eta = Eta(num_trials=num_trials, num_slots=num_slots)
        self._is_gone = False
        self._lines: dict[str, _Line] = {}
        self._last_line = self._begun = time.monotonic()
        self._live = Live(
            get_renderable=self._picture,
            console=self._console,
            transient=True,
            refresh_per_second=4,
            redirect_stdout=False,
            redirect_stderr=False,
        )

    def __enter__(self) -> Self:
        if self._console.is_terminal and self._num_trials:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live.is_started:
            with suppress(OSError, SystemExit):
                self._live.stop()

    def started(self, slot: str, trial: Trial) -> None:
        """A trial begins."""
        self._lines[slot] = _Line(trial)
        self._eta.started(slot, trial, now=time.monotonic())

    def progressed(self, slot: str, step: int, loss: float | None) -> None:
        """It is alive."""
        if slot in self._lines:
            self._lines[slot].move(step, loss=loss)
            self._eta.progressed(slot, self._lines[slot].part)
        if not self._console.is_terminal and time.monotonic() - self._last_line >= SECONDS_BETWEEN_LINES:
            for name, line in sorted(self._lines.items()):
                self._line(f"{name}: {line.text}", left=False)
            self._line(f"{len(self._lines)} running")

    def measured(self, slot: str, measurement: Measurement) -> None:
        """It has measured."""
        if slot in self._lines:
            line = self._lines[slot]
            line.move(measurement.step, loss=measurement.metrics.get("train_loss"), seconds=measurement.seconds)
            self._eta.progressed(slot, line.part)

    def finished(self, slot: str, trial: Trial, status: Status, *, reason: str | None, log: str | None) -> None:
        """It has ended, and is stored."""
        self._num_done += 1
        self._num_failed += status.failed
        self._lines.pop(slot, None)
        self._eta.finished(slot, now=time.monotonic())
        if status.failed:
            why = f": {reason.splitlines()[0]}" if reason else ""
            where = f" (log: {log})" if log else ""
            self._print(f"[red]{status}[/] {escape(trial.title + why + where)}")
        if not self._console.is_terminal:
            self._line(f"{trial.title}: {status}")

    def message(self, text: str) -> None:
        """Something that people should read."""
        with suppress(OSError, SystemExit):
            warn(text)

    def _line(self, text: str, *, left: bool = True) -> None:
        self._last_line = time.monotonic()
        rest = f", {self._left()}" if left else ""
        self._print(escape(f"[{self._num_done}/{self._num_trials}] {text}{rest}"))

    def _print(self, text: str) -> None:
        """Print a line, as long as anybody is there to read it: a sweep goes on without."""
        if not self._is_gone:
            try:
                self._console.print(text, soft_wrap=True)
            except (OSError, SystemExit):  # a terminal that was closed; a pipe, at whose end rich exits
                self._is_gone = True

    def _left(self) -> str:
        seconds = self._eta.seconds_left(num_done=self._num_done, now=time.monotonic())
        return "time left unknown" if seconds is None else f"{duration(seconds)} left"

    def _picture(self) -> RenderableType:
        slots = Table.grid(padding=(0, 2))
        for name, line in sorted(self._lines.items()):
            slots.add_row(f"[dim]{escape(name)}[/]", ProgressBar(total=1.0, completed=line.part, width=16), line.cell)
        failed = f", [red]{self._num_failed} failed[/]" if self._num_failed else ""
        left = max(self._num_trials - self._num_done, 0)
        elapsed = duration(time.monotonic() - self._begun)
        page = Table.grid()
        page.add_row(slots)
        page.add_row(f"{self._num_done} done{failed}, {left} left; {elapsed} so far, {self._left()}")
        return page


class _Line:
    """A trial under way, in words."""

    def __init__(self, trial: Trial) -> None:
        self._trial = trial
        self._step = 0
        self._loss: float | None = None
        self._seconds = 0.0

    def move(self, step: int, *, loss: float | None, seconds: float | None = None) -> None:
        self._step = step
        self._loss = self._loss if loss is None else loss
        self._seconds = self._seconds if seconds is None else seconds

    @property
    def part(self) -> float:
        """How much of its budget is spent, from 0 to 1."""
        budget = self._trial.budget
        by_steps = self._step / budget.num_steps if budget.num_steps else 0.0
        by_seconds = self._seconds / budget.seconds if budget.seconds else 0.0
        return min(max(by_steps, by_seconds), 1.0)

    @property
    def text(self) -> str:
        steps = f"step {self._step}" + (f"/{self._trial.budget.num_steps}" if self._trial.budget.num_steps else "")
        loss = "" if self._loss is None else f", loss {self._loss:.4g}"
        return f"{self._trial.title}, {steps}{loss}"

    @property
    def cell(self) -> str:
        return escape(self.text)


def duration(seconds: float) -> str:
    """Seconds in words for people: 12 s, 3 min 20 s, 2 h 5 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
