"""What is not about one trial, sent to where trials are tracked: the tables of a report, the figures of a night."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optbench import allowlist, components
from optbench.component import Component
from optbench.console import note, warn
from optbench.loggers.logger import plain_name
from optbench.loggers.tolerant import Tolerant
from optbench.sheet import Sheet

if TYPE_CHECKING:
    from optbench.loggers.logger import Logger


@dataclass(frozen=True, kw_only=True)
class Publication:
    """Tables, figures and files that belong together.

    Attributes:
        name: of the run, such as `report default` or `nightly 2026-11-28`.
        kind: what it is, in a word: `report`, `nightly`.
        group: publications of a kind with the same group are a history; None is one for the whole kind.
        config: what it was made from.
        figures: its numbers, by name: each publication is a point of its history.
        sheets: its tables.
        files: what else belongs to it, such as a page; their names differ.
        succeeded: whether all is well with it; else it is shown as failed.
        folder: where loggers that write files do so, each in a folder of its own below.
        step: the place of its figures in a history that is a curve, such as the number of the night.
    """

    name: str
    kind: str
    group: str | None
    config: Mapping[str, Any]
    figures: Mapping[str, float | int | str]
    sheets: Sequence[Sheet]
    files: Sequence[Path]
    succeeded: bool
    folder: Path
    step: int = 0

    @property
    def slug(self) -> str:
        """A folder's name for it."""
        return plain_name(self.name)

    @property
    def series(self) -> str:
        """A folder's name for its history."""
        return plain_name(self.kind if self.group is None else f"{self.kind} {self.group}")


@dataclass(frozen=True, kw_only=True)
class Tracked:
    """Where something is tracked.

    Attributes:
        logger: as it is composed.
        allowed: packages, or whole targets, that the command line allows.
    """

    logger: Component
    allowed: Sequence[str]


def build(logger: Component, *, allowed: Sequence[str] = ()) -> "Logger":
    """The logger that a config describes.

    Args:
        logger: as it is composed.
        allowed: packages, or whole targets, that the command line allows.

    Raises:
        UsageError: it is not among those that a config may call, or does not take what it is given.
    """
    part = [("logger", logger)]
    allowlist.check_names(part, allowed=allowed)
    allowlist.check_targets(part, allowed=allowed)
    built: Logger = components.build(logger, group="logger")
    return built


def publish(publication: Publication, logger: Component, *, allowed: Sequence[str] = ()) -> None:
    """Send a publication to where the logger keeps its runs; if that fails, a warning says so.

    Args:
        publication: what to send.
        logger: as it is composed.
        allowed: packages, or whole targets, that the command line allows.

    Raises:
        UsageError: the logger cannot be built as the config asks; nothing has been sent.
    """
    built = build(logger, allowed=allowed)
    failures: list[str] = []
    Tolerant(built, on_failure=failures.append, passes_mistakes=False).publish(publication)
    for failure in failures:
        warn(f"{publication.name} could not be tracked with logger={logger.name}: {failure}")
    if not failures and (remark := getattr(built, "remark", "")):
        note(remark)
