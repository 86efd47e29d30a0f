"""Trials one after the other in this process."""

from collections.abc import Callable, Sequence

from optbench.loggers import Logger, Tolerant
from optbench.measurement import Measurement, Status
from optbench.run import run
from optbench.store import Store
from optbench.trial import Trial


def execute(
    trials: Sequence[Trial],
    *,
    store: Store,
    logger: Logger,
    on_start: Callable[[Trial], None],
    on_measurement: Callable[[Trial, Measurement], None],
    on_result: Callable[[Trial, Status, str | None], None],
    on_logger_failure: Callable[[str], None],
) -> None:
    """Run each trial and store its result as soon as it is there; a trial that fails leaves the others alone.

    Args:
        trials: what to run, in this order.
        store: where results go.
        logger: hears of every trial.
        on_start: called before each trial.
        on_measurement: called while the trial's clock stands still.
        on_result: called after the result is stored, with its status and the reason of a failure.
        on_logger_failure: called with the reason when the logger gives up on a trial, which goes on without it.
    """
    for trial in trials:
        on_start(trial)
        tracked = Tolerant(logger, on_failure=on_logger_failure)
        tracked.start(trial, sweep=store.sweep)

        def measured(measurement: Measurement, trial: Trial = trial, tracked: Logger = tracked) -> None:
            tracked.log(measurement)
            on_measurement(trial, measurement)

        result = run(trial, on_measurement=measured)
        store.publish(trial, result)
        tracked.finish(result.summary, succeeded=result.status.succeeded)
        on_result(trial, result.status, result.summary.get("reason"))
