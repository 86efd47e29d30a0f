"""Plain files: a table of measurements for each trial, as Lightning's CSVLogger writes one."""

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from optbench.measurement import Measurement, Result
from optbench.parsing import json_safe
from optbench.trial import CURVE_COLUMNS, Trial

if TYPE_CHECKING:
    from optbench.tracking import Publication

FOLDER = "csv"
METRICS = "metrics.csv"
CONFIG = "hparams.yaml"
END = "result.yaml"


class CsvLogger:
    """Writes `csv/<trial id>/metrics.csv` in the folder of the sweep, a row for each measurement as it comes.

    Beside it are `hparams.yaml`, with the trial's config and environment, and at the end `result.yaml`.
    """

    remark = ""

    def __init__(self) -> None:
        self._folder = Path()
        self._rows: list[dict[str, Any]] = []
        self._columns: list[str] = []

    def start(self, trial: Trial, *, folder: Path, environment: Mapping[str, Any]) -> None:
        """Write down the config."""
        self._folder = folder / FOLDER / trial.id
        self._folder.mkdir(parents=True, exist_ok=True)
        self._rows, self._columns = [], []
        (self._folder / END).unlink(missing_ok=True)
        described = {"trial_id": trial.id, "title": trial.title, "sweep": folder.name}
        _write(self._folder / CONFIG, {**described, "config": trial.config, "environment": environment})

    def log(self, measurement: Measurement) -> None:
        """Write a row; with a metric that is new, the rows before are written again, without a value for it."""
        row = {name: getattr(measurement, name) for name in CURVE_COLUMNS} | dict(measurement.metrics)
        if not self._columns:
            self._rows = [] if measurement.step == 0 else self._earlier(measurement.step)
        new = [name for name in row if name not in self._columns]
        self._rows.append(row)
        path = self._folder / METRICS
        if not new:
            with path.open("a", newline="", encoding="utf-8") as file:
                self._writer(file).writerow(row)
            return
        self._columns = list(dict.fromkeys(name for each in self._rows for name in each))
        part = path.with_suffix(".part")
        with part.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerow([_inert(name) for name in self._columns])
            self._writer(file).writerows(self._rows)
        part.replace(path)

    def finish(self, result: Result) -> None:
        """Write down how it ended."""
        ended = {"status": str(result.status), "summary": result.summary, "timing": result.timing}
        _write(self._folder / END, ended)

    def abandon(self) -> None:
        """Nothing is under way between two rows."""

    def publish(self, publication: "Publication") -> None:
        """Write the figures, and each table as CSV, to `csv/<name>` in the publication's folder."""
        import pandas as pd

        from optbench.writing import csv as as_csv

        folder = publication.folder / FOLDER / publication.slug
        folder.mkdir(parents=True, exist_ok=True)
        _write(folder / CONFIG, {"name": publication.name, "kind": publication.kind, "config": publication.config})
        figures = {"name": publication.name, "step": publication.step, **publication.figures}
        (folder / METRICS).write_text(as_csv(pd.DataFrame([figures])), encoding="utf-8")
        for sheet in publication.sheets:
            (folder / f"{sheet.name}.csv").write_text(as_csv(sheet.numbers), encoding="utf-8")

    def _earlier(self, step: int) -> list[dict[str, Any]]:
        """The rows before this step, of a trial that was stopped and goes on."""
        try:
            with (self._folder / METRICS).open(newline="", encoding="utf-8") as file:
                rows = list(csv.DictReader(file))
            return [row for row in rows if int(row["step"]) < step]
        except (OSError, KeyError, ValueError):  # it was tracked elsewhere, or killed in the middle of a row
            return []

    def _writer(self, file: Any) -> "csv.DictWriter[str]":
        return csv.DictWriter(file, self._columns, restval="")


def _inert(name: str) -> str:
    from optbench.writing import inert  # pandas takes its time

    return str(inert(name))


def _write(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(yaml.safe_dump(json_safe(content), sort_keys=False, allow_unicode=True), encoding="utf-8")
