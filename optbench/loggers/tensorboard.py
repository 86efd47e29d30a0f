"""TensorBoard: event files, a folder for each trial."""

import importlib.util
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optbench.component import DESCRIPTION
from optbench.errors import UsageError
from optbench.loggers.logger import plain_name
from optbench.measurement import Measurement, Result
from optbench.trial import Trial

if TYPE_CHECKING:
    from optbench.tracking import Publication

FOLDER = "tensorboard"


class TensorBoardLogger:
    """Writes event files to `tensorboard/<title>-<trial id>` in the folder of the sweep.

    Raises:
        UsageError: TensorBoard is not installed.
    """

    remark = ""

    def __init__(self) -> None:
        if importlib.util.find_spec("tensorboard") is None:
            raise UsageError("logger=tensorboard needs TensorBoard: pip install 'optbench[tensorboard]'.")
        self._folder = Path()
        self._hyperparameters: dict[str, Any] = {}
        self._writer: Any = None

    def start(self, trial: Trial, *, folder: Path, environment: Mapping[str, Any]) -> None:
        """Note where it goes; the file is made by the first measurement, which tells from where the trial goes on."""
        del environment
        self._folder = folder / FOLDER / f"{plain_name(trial.title)}-{trial.id}"
        self._hyperparameters = dict(_flat(trial.config))
        self._writer = None

    def log(self, measurement: Measurement) -> None:
        """Write a scalar by step for each metric."""
        if self._writer is None:
            self._writer = _open(self._folder, purge_step=measurement.step)
        for name in ("seconds", "lr", "gradient_evaluations"):
            self._writer.add_scalar(name, getattr(measurement, name), measurement.step)
        for name, value in measurement.metrics.items():
            self._writer.add_scalar(name, value, measurement.step)
        self._writer.flush()

    def finish(self, result: Result) -> None:
        """Write the hyperparameters with the final figures, and how it ended."""
        from torch.utils.tensorboard.summary import hparams

        writer = self._writer or _open(self._folder, purge_step=0)  # it has failed before it could measure
        figures = {f"final/{name}": value for name, value in result.summary.items() if _is_number(value)}
        asked = {**self._hyperparameters, "status": str(result.status)}
        for summary in hparams(asked, figures):  # into the same file; `add_hparams` would make one more run
            writer.file_writer.add_summary(summary)
        step = result.summary.get("num_steps") or 0
        for name, value in figures.items():
            writer.add_scalar(name, value, step)
        writer.add_text("status", str(result.status), step)
        writer.close()
        self._writer = None

    def abandon(self) -> None:
        """Leave the file as it is."""
        self._writer = None

    def publish(self, publication: "Publication") -> None:
        """Write the figures as scalars, at the publication's step, and each table as text, in Markdown."""
        from optbench.writing import markdown

        folder = publication.folder / FOLDER / publication.series
        writer = _open(folder, purge_step=None)
        for name, value in publication.figures.items():
            if _is_number(value):
                writer.add_scalar(name, value, publication.step)
            else:
                writer.add_text(name, str(value), publication.step)
        for sheet in publication.sheets:
            writer.add_text(f"tables/{sheet.name}", markdown(sheet), publication.step)
        writer.close()


def _open(folder: Path, *, purge_step: int | None) -> Any:
    """A writer of event files; what earlier ones in the folder have from this step on is void."""
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder), purge_step=purge_step)


def _flat(config: Mapping[str, Any], *, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The values of a config by their keys with dots; a list is its text."""
    for key, value in config.items():
        if key in DESCRIPTION or value is None:
            continue
        if isinstance(value, Mapping):
            yield from _flat(value, prefix=f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value if isinstance(value, (bool, int, float, str)) else str(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
