"""Weights & Biases: a run for each trial, and one for each report or night."""

import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optbench.errors import UsageError, unknown
from optbench.measurement import Measurement, Result
from optbench.parsing import json_safe
from optbench.patience import within
from optbench.trial import Trial

if TYPE_CHECKING:
    from optbench.tracking import Publication

WANDB_MODES = ("online", "offline", "disabled")
PROJECT = "optbench"
FINISH_SECONDS = 60.0  # for sending what is left at the end of a run; it stays on the disk in any case
_OFFLINE = ("offline", "dryrun")  # wandb's names for it in WANDB_MODE
_OTHERS = ("dryrun", "run", "shared")  # modes that wandb takes from the environment, too
_MAX_TAG = 64  # letters
_SERVICE = "wandb-core"  # wandb's process that writes and sends
_NOT_SENT = ("host",)  # of an environment: which machine it was is nobody's business
_NO_FIGURES = ("traceback",)  # of a summary: it quotes source code
_SERVICE_SECONDS = 3.0  # for its end
_DATA_DIR = "WANDB_DATA_DIR"
# Of what wandb collects by itself nothing is sent: no code, command line, console, list of packages or machine.
_SETTINGS: Mapping[str, Any] = {
    "silent": True,
    "console": "off",
    "host": "",
    "save_code": False,
    "disable_code": True,
    "disable_git": True,
    "disable_job_creation": True,
    "finish_timeout": FINISH_SECONDS,
    "finish_timeout_raises": True,
    "x_disable_meta": True,
    "x_disable_machine_info": True,
    "x_disable_stats": True,
    "x_save_requirements": False,
    "x_transaction_log_flush_interval": 1.0,  # seconds of a run that are lost with wandb's process
}


class WandbLogger:
    """One Weights & Biases run for each trial, with the sweep as its group and the task as its job type.

    Args:
        project: where the runs go; None takes WANDB_PROJECT of the environment, else `optbench`.
        entity: user or team; None takes WANDB_ENTITY, else the account's own.
        mode: `online`, `offline` to write to the disk only, `disabled` to do nothing; None takes WANDB_MODE, else
            `online`.
        tags: of every run, besides the task, the optimizer and the status.
        notes: of every run.
        dir: the folder in which `wandb/` is made; None takes WANDB_DIR, else the working folder.

    Raises:
        UsageError: there is no such mode.
    """

    def __init__(
        self,
        *,
        project: str | None = None,
        entity: str | None = None,
        mode: str | None = None,
        tags: Sequence[str] = (),
        notes: str | None = None,
        dir: str | None = None,  # noqa: A002  wandb's name for it
    ) -> None:
        if mode is not None and mode not in WANDB_MODES:
            raise unknown("mode", mode, WANDB_MODES, where="for logger.mode")
        if isinstance(tags, str):
            raise UsageError(f"logger.tags={tags}: a list is needed, as in 'logger.tags=[{tags}]'.")
        given = os.environ.get("WANDB_MODE")
        if mode is None and given and given not in (*WANDB_MODES, *_OTHERS):
            raise unknown("mode", given, WANDB_MODES, where="in WANDB_MODE of the environment")
        self._mode = mode
        self._tags = tuple(map(str, tags))
        self._dir = dir
        self._options: dict[str, Any] = {
            "project": project or os.environ.get("WANDB_PROJECT") or PROJECT,
            "entity": entity,
            "mode": mode,
            "notes": notes,
            "dir": dir,
        }
        self._run: Any = None

    @property
    def remark(self) -> str:
        """Where runs are written, and how they are sent later; "" where they are sent at once."""
        if (self._mode or os.environ.get("WANDB_MODE")) not in _OFFLINE:
            return ""
        folder = self._folder()
        shown = "" if folder == Path() else f"{folder}/"
        return (
            f"Weights & Biases is offline: runs are written below {folder / 'wandb'}. "
            f"To send them later: wandb sync {shown}wandb/offline-run-*"
        )

    def start(self, trial: Trial, *, folder: Path, environment: Mapping[str, Any]) -> None:
        """Open the run, with the trial's config and environment and with `step` as the x axis of all its curves.

        Raises:
            UsageError: Weights & Biases has no key.
            ConnectionError: it cannot be reached.
        """
        self._run = run = self._init(
            name=trial.title,
            group=folder.name,
            job_type=trial.task.name,
            tags=[trial.task.name, trial.optimizer.name],
            config={
                **json_safe(trial.config),
                "trial_id": trial.id,
                "environment": json_safe({key: value for key, value in environment.items() if key not in _NOT_SENT}),
            },
        )
        run.define_metric("step")
        run.define_metric("*", step_metric="step")
        for name, direction in (trial.config["task"].get("metrics") or {}).items():
            run.define_metric(name, step_metric="step", summary=f"{direction},last")

    def log(self, measurement: Measurement) -> None:
        """Log the metrics, and what they can be drawn against: step, seconds and gradient evaluations."""
        row = {
            "step": measurement.step,
            "seconds": measurement.seconds,
            "gradient_evaluations": measurement.gradient_evaluations,
            "lr": measurement.lr,
            **measurement.metrics,
        }
        # Committed at once: else the row would come after the summary, and write over it.
        self._run.log(
            {key: value for key, value in row.items() if math.isfinite(value)}, step=measurement.step, commit=True
        )

    def finish(self, result: Result) -> None:
        """Write the final figures and the status, and close the run, as failed where the trial has failed."""
        run = self._run
        figures = {key: value for key, value in result.summary.items() if key not in _NO_FIGURES}
        # The figures of a failed trial are None, while its curve has a last value: they have names of their own.
        run.summary.update({"status": str(result.status), "final": figures, "timing": dict(result.timing)})
        run.tags = _tags([*run.tags, str(result.status)])
        run.finish(exit_code=1 if result.status.failed else 0)
        self._run = None

    def abandon(self) -> None:
        """End wandb's process, for what waits for it would wait for ever; the next run starts another one."""
        self._run = None
        import psutil
        import wandb

        with suppress(Exception):  # while it answers it writes down what it has; else it says that the process is gone
            within(_SERVICE_SECONDS, wandb.teardown)
        for child in psutil.Process().children():
            with suppress(psutil.Error):
                if child.name() == _SERVICE:
                    child.kill()
                    child.wait(_SERVICE_SECONDS)

    def publish(self, publication: "Publication") -> None:
        """A run with the figures, each table in words and in numbers, and an artifact with the files and tables.

        Raises:
            UsageError: Weights & Biases has no key.
            ConnectionError: it cannot be reached.
        """
        import wandb

        from optbench.writing import csv

        with self._keeps_artifacts():
            run = self._run = self._init(
                name=publication.name,
                group=publication.group,
                job_type=publication.kind,
                tags=[publication.kind],
                config=json_safe(publication.config),
            )
            tables = {}
            for sheet in publication.sheets:
                for folder, table in (("tables", sheet.words), ("numbers", sheet.numbers)):
                    tables[f"{folder}/{sheet.name}"] = wandb.Table(
                        columns=[str(name) for name in table],
                        data=[[_cell(cell) for cell in line] for line in table.astype(object).to_numpy().tolist()],
                        allow_mixed_types=True,
                    )
            run.log({**_finite(publication.figures), **tables}, step=publication.step, commit=True)
            artifact = wandb.Artifact(_name(publication.kind, publication.group), type=publication.kind)
            for sheet in publication.sheets:
                with artifact.new_file(f"tables/{sheet.name}.csv", encoding="utf-8") as file:
                    file.write(csv(sheet.numbers))
            for path in publication.files:
                artifact.add_file(str(path), name=path.name)
            run.log_artifact(artifact)
            run.summary.update({**publication.figures, "status": "completed" if publication.succeeded else "failed"})
            run.finish(exit_code=0 if publication.succeeded else 1)
            self._run = None

    def _init(self, *, tags: Sequence[str], **of_run: Any) -> Any:
        import wandb

        known = wandb.Settings.model_fields  # versions differ
        settings = wandb.Settings(**{key: value for key, value in _SETTINGS.items() if key in known})
        try:
            wandb.setup(wandb.Settings(silent=True))  # so that it does not ask for a key, unseen beneath the progress
            return wandb.init(
                **self._options,
                **of_run,
                tags=_tags([*self._tags, *tags]),
                settings=settings,
                reinit="create_new",  # one that hangs must not be waited for
            )
        except wandb.errors.CommError as error:  # of the network, and no mistake: it costs the tracking alone
            raise ConnectionError(f"Weights & Biases cannot be reached: {error}") from error
        except wandb.Error as error:
            raise UsageError(
                f"logger=wandb cannot start: {error}\n"
                "Log in with `wandb login`, or use logger.mode=offline or logger=none."
            ) from error

    @contextmanager
    def _keeps_artifacts(self) -> Iterator[None]:
        """Have the files of artifacts wait beside the runs: of an offline run they are a part, and not in the home."""
        given = os.environ.get(_DATA_DIR)
        os.environ[_DATA_DIR] = given or str((self._folder() / "wandb").resolve())
        try:
            yield
        finally:
            if given is None:
                del os.environ[_DATA_DIR]

    def _folder(self) -> Path:
        return Path(self._dir or os.environ.get("WANDB_DIR") or ".")


def _tags(tags: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(tag[:_MAX_TAG] for tag in tags if tag))


def _finite(figures: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in figures.items() if not isinstance(value, float) or math.isfinite(value)}


def _cell(value: Any) -> Any:
    """What JSON has for a cell: a number, a text or nothing."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, (bool, int, float, str)) else None if value is None else str(value)


def _name(kind: str, group: str | None) -> str:
    """Of an artifact, whose versions are one after the other: nights, or reports on the same sweep."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", kind if group is None else f"{kind}-{group}")
