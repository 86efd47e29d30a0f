"""Tracking besides the store: a logger hears of each trial's measurements while its clock stands still."""

import math
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from optbench.errors import UsageError, unknown
from optbench.measurement import Measurement
from optbench.parsing import json_safe
from optbench.trial import Trial

WANDB_MODES = ("online", "offline", "disabled")


class Logger(Protocol):
    """Hears of one trial after another."""

    def start(self, trial: Trial, *, sweep: str) -> None:
        """A trial of the sweep so named begins."""
        ...

    def log(self, measurement: Measurement) -> None:
        """It has measured."""
        ...

    def finish(self, summary: Mapping[str, Any], *, succeeded: bool) -> None:
        """It has ended."""
        ...


class NullLogger:
    """Keeps nothing: the store has it all."""

    def start(self, trial: Trial, *, sweep: str) -> None:
        """Nothing."""

    def log(self, measurement: Measurement) -> None:
        """Nothing."""

    def finish(self, summary: Mapping[str, Any], *, succeeded: bool) -> None:
        """Nothing."""


class WandbLogger:
    """One Weights & Biases run for each trial, with the trial's id and the sweep as its group.

    Args:
        project: where the runs go.
        entity: user or team; None takes the account's own.
        mode: `online`, or `offline` to write below ./wandb only.
    """

    def __init__(self, *, project: str, entity: str | None, mode: str) -> None:
        if mode not in WANDB_MODES:
            raise unknown("mode", mode, WANDB_MODES, where="for logger.mode")
        self._options: dict[str, Any] = {"project": project, "entity": entity, "mode": mode}
        self._run: Any = None

    def start(self, trial: Trial, *, sweep: str) -> None:
        """Open the run; command line, machine and code are not sent, only the trial's config.

        Raises:
            UsageError: Weights & Biases cannot be reached or has no key.
        """
        import wandb

        try:
            self._run = wandb.init(
                **self._options,
                name=trial.title,
                group=sweep,
                job_type=trial.task.name,
                config={**json_safe(trial.config), "trial_id": trial.id},
                settings=wandb.Settings(x_disable_meta=True, x_disable_stats=True, save_code=False, silent=True),
                reinit="finish_previous",
            )
        except wandb.Error as error:
            raise UsageError(
                f"logger=wandb cannot start: {error}\n"
                "Log in with `wandb login`, or use logger.mode=offline or logger=none."
            ) from error

    def log(self, measurement: Measurement) -> None:
        """Log the metrics against the step."""
        finite = {name: value for name, value in measurement.metrics.items() if math.isfinite(value)}
        self._run.log({"seconds": measurement.seconds, "lr": measurement.lr, **finite}, step=measurement.step)

    def finish(self, summary: Mapping[str, Any], *, succeeded: bool) -> None:
        """Write the summary and close the run, as failed where the trial did not succeed."""
        self._run.summary.update(summary)
        self._run.finish(exit_code=0 if succeeded else 1)


class Tolerant:
    """A logger for one trial whose failures cost the tracking, never the trial.

    Args:
        logger: does the work, until it raises.
        on_failure: called with the reason when it does.
        passes_mistakes: whether a `UsageError` is raised, as long as nothing has been trained.
    """

    def __init__(self, logger: Logger, *, on_failure: Callable[[str], None], passes_mistakes: bool = True) -> None:
        self._logger = logger
        self._on_failure = on_failure
        self._passes_mistakes = passes_mistakes

    def start(self, trial: Trial, *, sweep: str) -> None:
        """As the logger does."""
        self._try(lambda: self._logger.start(trial, sweep=sweep))

    def log(self, measurement: Measurement) -> None:
        """As the logger does."""
        self._try(lambda: self._logger.log(measurement))

    def finish(self, summary: Mapping[str, Any], *, succeeded: bool) -> None:
        """As the logger does."""
        self._try(lambda: self._logger.finish(summary, succeeded=succeeded))

    def _try(self, call: Callable[[], None]) -> None:
        try:
            call()
        except Exception as error:
            if isinstance(error, UsageError) and self._passes_mistakes:
                raise
            self._logger = NullLogger()
            self._on_failure(f"{type(error).__name__}: {error}")
