"""A logger whose failures cost the tracking, never the trial."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optbench.errors import UsageError
from optbench.loggers.logger import Logger, NullLogger
from optbench.measurement import Measurement, Result
from optbench.patience import within
from optbench.trial import Trial

if TYPE_CHECKING:
    from optbench.tracking import Publication

# How long each is waited for. Weights & Biases gives up a start after 90 seconds, and the end of a run after the
# FINISH_SECONDS of its logger: then it says why, which is better than the silence that these end.
START_SECONDS = 120.0
LOG_SECONDS = 30.0
FINISH_SECONDS = 90.0
PUBLISH_SECONDS = 300.0
ABANDON_SECONDS = 10.0


class Tolerant:
    """A logger for one trial. One that raises or hangs is left, and the trial goes on without it.

    Args:
        logger: does the work, until it fails.
        on_failure: called with the reason when it does.
        passes_mistakes: whether a `UsageError` is raised, as long as nothing has been trained.
    """

    remark = ""

    def __init__(self, logger: Logger, *, on_failure: Callable[[str], None], passes_mistakes: bool = True) -> None:
        self._logger = logger
        self._on_failure = on_failure
        self._passes_mistakes = passes_mistakes

    def start(self, trial: Trial, *, folder: Path, environment: Mapping[str, Any]) -> None:
        """As the logger does."""
        self._try(lambda: self._logger.start(trial, folder=folder, environment=environment), seconds=START_SECONDS)
        self._passes_mistakes = False

    def log(self, measurement: Measurement) -> None:
        """As the logger does."""
        self._try(lambda: self._logger.log(measurement), seconds=LOG_SECONDS)

    def finish(self, result: Result) -> None:
        """As the logger does."""
        self._try(lambda: self._logger.finish(result), seconds=FINISH_SECONDS)

    def abandon(self) -> None:
        """As the logger does."""
        abandoned, self._logger = self._logger, NullLogger()
        with suppress(Exception):
            within(ABANDON_SECONDS, abandoned.abandon)

    def publish(self, publication: "Publication") -> None:
        """As the logger does."""
        self._try(lambda: self._logger.publish(publication), seconds=PUBLISH_SECONDS)

    def _try(self, call: Callable[[], None], *, seconds: float) -> None:
        if type(self._logger) is NullLogger:  # no thread for nothing
            return
        try:
            within(seconds, call)
        except Exception as error:
            if isinstance(error, UsageError) and self._passes_mistakes:
                raise
            self.abandon()
            self._on_failure(reason(error))


def reason(error: Exception) -> str:
    """An error in a line; of some, the name of their class is all that there is."""
    return ": ".join(part for part in (type(error).__name__, str(error).strip()) if part)
