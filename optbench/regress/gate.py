"""`optbench regress`: measure a suite, hold it against a baseline, write what came of it, answer with an exit code."""

import os
import shutil
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from optbench.console import note, warn
from optbench.errors import Interrupted, UsageError
from optbench.regress import baselines, settling, sides, timing
from optbench.regress.baselines import Baseline
from optbench.regress.findings import Answer, Finding
from optbench.regress.judging import judge
from optbench.regress.measuring import Measuring, Plan
from optbench.regress.night import Against, Night
from optbench.regress.rounds import Round
from optbench.regress.sides import Side
from optbench.tracking import Tracked

FOLDER = "regress"
WORK, LOCK = "work", ".lock"
EXIT_OK, EXIT_REGRESSION, EXIT_FAILED, EXIT_NO_BASELINE, EXIT_UNKNOWN = 0, 10, 11, 12, 13


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What the command line says.

    Attributes:
        plan: the suite, composed.
        results: the folder of all sweeps.
        against: a commit, pins or a wheel; None holds it against the accepted baseline.
        allows_unknown: whether what cannot be told is no reason for an exit code.
        overrides: of the logger, for the trials of this side.
        tracked: the same logger, which hears of the night; None where none was asked for.
        here: this side; tests give it other variables.
    """

    plan: Plan
    results: Path
    against: str | None
    allows_unknown: bool
    overrides: Sequence[str] = ()
    tracked: Tracked | None = None
    here: Side = Side(name="this side")  # noqa: RUF009  frozen


def regress(asked: Asked) -> int:
    """Measure, judge, write and show.

    Returns:
        0 where nothing is worse, 10 for a confirmed regression, 12 without a usable baseline of all that is asked, 11
        where something could not be measured, 13 where noise is too loud; of several the first of these but 0.

    Raises:
        UsageError: what is asked cannot be done.
        Interrupted: a signal came; nothing is written.
    """
    from optbench.regress import showing

    suite = asked.plan.suite
    folder = asked.results / FOLDER / suite.name
    with ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(FileLock(folder / LOCK, timeout=0))
            showing.clear(folder)  # what a run that fails leaves behind is not to be taken for its own
            work = _emptied(folder / WORK)
        except Timeout as error:
            raise UsageError(f"{folder}: another run of {suite.name} is under way here. Wait for its end.") from error
        except OSError as error:
            raise _unwritable(folder, error) from error
        stack.enter_context(ended_by_signals())
        if suite.minutes is not None:
            note(f"{suite.name}: some {suite.minutes:g} minutes on {suite.machine}.")
        measuring = Measuring(plan=asked.plan, work=work, tracked=asked.overrides, say=note)
        night = measure(asked, measuring)
        try:
            showing.keep(night, folder=folder)
        except OSError as error:
            raise _unwritable(folder, error) from error
        if asked.tracked is not None:
            showing.track(night, asked.tracked, folder=folder)
        showing.show(night, folder=folder)
    return night.exit_code


def measure(asked: Asked, measuring: Measuring) -> Night:
    """Measure this side, and the other one where it is an environment; and judge.

    Args:
        asked: by the command line.
        measuring: asks sides.
    """
    suite, here = asked.plan.suite, asked.here
    started, begun, load = datetime.now(UTC), time.monotonic(), os.getloadavg()[0]
    baseline: Baseline | None = None
    there: Side | None = None
    if asked.against is None:
        baseline, against = baselines.find(asked.results, suite.name)
        if against.state != "there":
            warn("there is no usable baseline, so that this run is held against nothing and can become one.")
    else:
        there = sides.make(asked.against)
        against = Against(kind=sides.kind_of(asked.against), name=there.name)
    old = None if baseline is None else baseline.readings
    if there is not None:
        old = measuring.readings(there, is_here=False)
    new = measuring.readings(here, is_here=True)
    rounds: Mapping[str, Sequence[Round]] = {}
    remarks: Mapping[str, str] = {}
    if suite.num_pairs:
        if baseline is None:
            timed = timing.take(measuring, here=here, there=there, baseline=None)
        else:
            timed, remarks = settling.take(measuring, here=here, baseline=baseline.readings)
        new = replace(
            new,
            samples=timed.here,
            environment=new.environment or timed.environment,
            failures={**new.failures, **timed.failures},
        )
        if there is not None and old is not None:
            old = replace(old, samples=timed.there)
        rounds = timed.rounds
    findings = judge(old, new, rounds=rounds, expected=asked.plan.expected, remarks=remarks)
    machine = baselines.this_machine()
    return Night(
        suite=suite.name,
        digest=suite.digest,
        started=started.strftime("%Y-%m-%dT%H:%M:%SZ"),
        seconds=time.monotonic() - begun,
        machine=machine.fingerprint,
        machine_words=machine.words,
        load=(load, os.getloadavg()[0]),
        against=against,
        readings=new,
        findings=findings,
        exit_code=exit_code(findings, against, allows_unknown=asked.allows_unknown),
    )


def exit_code(findings: Sequence[Finding], against: Against, *, allows_unknown: bool) -> int:
    """The answer of a night, the worst that there is."""
    answers = {finding.answer for finding in findings}
    if Answer.FAIL in answers:
        return EXIT_REGRESSION
    if against.state != "there" or Answer.UNCOMPARED in answers or not answers - {Answer.NEW, Answer.MISSING}:
        return EXIT_NO_BASELINE
    if Answer.BROKEN in answers:
        return EXIT_FAILED
    if Answer.UNKNOWN in answers and not allows_unknown:
        return EXIT_UNKNOWN
    return EXIT_OK


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP end what is under way as Ctrl-C does, so that no process is left behind."""

    def end(number: int, _: object) -> None:
        raise Interrupted(128 + number)

    before = {}
    for number in (signal.SIGTERM, signal.SIGHUP):
        with suppress(ValueError):  # not on the main thread
            if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup asks
                before[number] = signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _unwritable(folder: Path, error: OSError) -> UsageError:
    return UsageError(f"{folder} cannot be written to: {error}. Choose another place with results=<folder>.")


def _emptied(folder: Path) -> Path:
    """The folder of what is worked with, which the next run does not need."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
