"""What a logger is, and the one that keeps nothing."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from optbench.measurement import Measurement, Result
from optbench.trial import Trial

if TYPE_CHECKING:
    from optbench.tracking import Publication

MAX_NAME = 120  # letters of the name of a file or folder


class Logger(Protocol):
    """Hears of one trial after another, or of a publication.

    Attributes:
        remark: what people should know of it before the first trial starts; "" is nothing.
    """

    @property
    def remark(self) -> str:
        """What people should know of it before the first trial starts; "" is nothing."""
        ...

    def start(self, trial: Trial, *, folder: Path, environment: Mapping[str, Any]) -> None:
        """A trial begins.

        Args:
            trial: the trial.
            folder: of its sweep, in the results folder, and named as the sweep is.
            environment: where it runs: versions, commit and machine, as its result has them.

        Raises:
            UsageError: it cannot be tracked as the config asks.
        """
        ...

    def log(self, measurement: Measurement) -> None:
        """It has measured."""
        ...

    def finish(self, result: Result) -> None:
        """It has ended, and its result is stored."""
        ...

    def abandon(self) -> None:
        """What is under way has failed or hangs: leave it, so that the next trial can be tracked."""
        ...

    def publish(self, publication: "Publication") -> None:
        """Keep tables and files that are not about one trial, such as those of a report.

        Raises:
            UsageError: they cannot be tracked as the config asks.
        """
        ...


class NullLogger:
    """Keeps nothing: the store has it all."""

    remark = ""

    def start(self, trial: Trial, *, folder: Path, environment: Mapping[str, Any]) -> None:
        """Nothing."""

    def log(self, measurement: Measurement) -> None:
        """Nothing."""

    def finish(self, result: Result) -> None:
        """Nothing."""

    def abandon(self) -> None:
        """Nothing."""

    def publish(self, publication: "Publication") -> None:
        """Nothing."""


def plain_name(text: str) -> str:
    """A name for a file or folder that is part of no path, whatever the text holds."""
    name = re.sub(r"[^A-Za-z0-9.=-]+", "_", text)[:MAX_NAME].strip("._-")
    return name or "unnamed"
