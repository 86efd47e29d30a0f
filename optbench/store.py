"""The store: one JSON file for each trial, written once, and a Parquet index made from those files.

    results/<sweep>/plan.json             the trials that the last command asked for
    results/<sweep>/trials/<id>.json      one result: the truth, sealed with a SHA-256
    results/<sweep>/index/trials.parquet  a row for each, to be read with pandas; may be deleted at any time
    results/<sweep>/superseded/           results that were asked to be run again
    results/<sweep>/quarantine/           files that did not hold what was written
    results/<sweep>/logs/                 what trials have printed
    results/<sweep>/leases/               who is at which trial, see `optbench.lease`
    results/<sweep>/checkpoints/          of trials that were stopped, see `optbench.checkpoint`
    results/<sweep>/tmp/                  what is being written; a killed process may leave something here

A result is whole or absent: it is written to a file of its own, flushed to the disk, and then published under
its name by a hard link, which fails where the name is taken. Nothing is overwritten.
"""

import hashlib
import io
import itertools
import json
import os
import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optbench import __version__
from optbench.errors import UsageError
from optbench.parsing import json_safe
from optbench.stored import COLUMNS, Stored
from optbench.stored import row_of as _row
from optbench.trial import Trial

if TYPE_CHECKING:
    import pandas as pd

    from optbench.measurement import Result

SCHEMA = 1
FEW = 200  # files that are read one by one sooner than libraries are imported that read an index
_INDEX = 3  # to be counted on when an index has other columns
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.=,-]*")
_COLUMNS = ("id", "task", "optimizer", "setting", "seed", "status", "modified_ns")


class Store:
    """The results of one sweep.

    Args:
        results: the folder of all sweeps.
        sweep: the sweep's name, a plain folder name.

    Attributes:
        quarantined: files found not to hold what was written, where they have been moved to.

    Raises:
        UsageError: the name is not plain.
    """

    def __init__(self, results: Path, sweep: str) -> None:
        if not _NAME.fullmatch(sweep):
            raise UsageError(f"sweep.name={sweep!r}: a plain folder name is needed (letters, digits and _ . = , -).")
        self.sweep = sweep
        self.folder = results / sweep
        self.quarantined: list[Path] = []
        self._trials = self.folder / "trials"

    def path(self, trial_id: str) -> Path:
        """Where this trial's result is, or will be."""
        return self._trials / f"{trial_id}.json"

    def log(self, name: str) -> Path:
        """Where it is kept what a trial, by its id, or a worker has printed."""
        return self.folder / "logs" / f"{name}.log"

    def publish(self, trial: Trial, result: "Result", *, replaces: int | None = None) -> Path:
        """Store a result. Where the trial has one already, that one stays and this one is dropped.

        Args:
            trial: what was asked.
            result: what was found.
            replaces: when the result was last changed, in nanoseconds, that this one takes the place of; that one is
                kept in `superseded/`. None takes no result's place.

        Raises:
            OSError: the disk is full or not writable; what was stored before is untouched.
        """
        record = {
            "schema": SCHEMA,
            "id": trial.id,
            "config": json_safe(trial.config),
            "status": result.status,
            "summary": result.summary,
            "curve": result.curve,
            "environment": result.environment,
            "timing": result.timing,
        }
        content = _seal(json.dumps(record, allow_nan=False).encode())
        path = self.path(trial.id)
        path.parent.mkdir(parents=True, exist_ok=True)
        with self._flushed(content) as written, suppress(FileExistsError):
            if replaces is not None and self.modified_ns(trial.id) == replaces:
                _copy_link(path, self.folder / "superseded")
                written.replace(path)  # at no moment is there none
            else:
                os.link(written, path)
            _fsync_folder(path.parent)
        return path

    def modified_ns(self, trial_id: str) -> int | None:
        """When this trial's result was last changed, in nanoseconds; None where there is none."""
        with suppress(FileNotFoundError, NotADirectoryError):
            return self.path(trial_id).stat().st_mtime_ns
        return None

    def read(self, trial_id: str) -> dict[str, Any] | None:
        """The record of a trial, or None. A file that does not hold what was written is set aside.

        Raises:
            UsageError: a later optbench wrote the record.
        """
        path = self.path(trial_id)
        try:
            record = _unseal(path.read_bytes())
        except FileNotFoundError:  # another process may have set it aside
            return None
        if record is None or record["id"] != trial_id:
            self._quarantine(path)
            return None
        _check_schema(record, path)
        return record

    def write_plan(self, trials: Sequence[Trial], overrides: Sequence[str], **others: Any) -> None:
        """Note what the command under way asks for: its overrides, and the trials that they make.

        Args:
            trials: in their order; the plan has their ids and titles.
            overrides: as they were typed.
            others: what else the plan is to hold, such as `command`, the words after `optbench`, and `runs_here`.
        """
        ids, titles = [trial.id for trial in trials], [trial.title for trial in trials]
        plan = {"schema": SCHEMA, "overrides": list(overrides), **others, "ids": ids, "titles": titles}
        self.write("plan.json", json.dumps(plan, indent=1))

    def read_plan(self) -> dict[str, Any] | None:
        """The plan of the last command: `overrides`, `ids` and, in later ones, `titles`; None where none can be read.

        Raises:
            UsageError: a later optbench wrote it.
        """
        path = self.folder / "plan.json"
        try:
            plan: dict[str, Any] = json.loads(path.read_bytes())
        except FileNotFoundError:
            return None
        except ValueError:
            self._quarantine(path)
            return None
        _check_schema(plan, path)
        return plan

    def write(self, name: str, content: str | bytes) -> Path:
        """Write a file that is made from the results, such as a table, in place of one of that name."""
        path = self.folder / name
        with self._flushed(content) as written:
            path.parent.mkdir(parents=True, exist_ok=True)
            written.replace(path)
        return path

    def statuses(self) -> dict[str, Stored]:
        """What planning looks at of each stored trial, by id. Damaged files are set aside.

        Raises:
            UsageError: a later optbench wrote one of the trials.
        """
        return {row["id"]: Stored.from_row(row) for row in self.rows(COLUMNS)}

    def rows(self, columns: Sequence[str]) -> list[dict[str, Any]]:
        """These columns of the index, a row for each stored trial; what a trial does not have is None.

        Takes a fraction of the time of `index`, and no pandas, unless many trials are new to the index.

        Raises:
            UsageError: a later optbench wrote one of the trials.
        """
        columns = list(dict.fromkeys(("id", "modified_ns", *columns)))
        modified = self._modified()
        known = self._indexed(columns) if len(modified) > FEW else []
        rows = [row for row in known if modified.get(row["id"]) == row["modified_ns"]]
        unseen = modified.keys() - {row["id"] for row in rows}
        if len(unseen) > FEW:
            frame = self.index().reindex(columns=columns).astype(object)
            found: list[dict[Any, Any]] = frame.where(frame.notna(), None).to_dict("records")
            return found
        for trial_id in sorted(unseen):
            if (record := self.read(trial_id)) is not None:
                row = {**_row(record), "modified_ns": modified[trial_id]}
                rows.append({name: row.get(name) for name in columns})
        return rows

    def _indexed(self, columns: Sequence[str]) -> list[dict[str, Any]]:
        """These columns of the index as it was last written; nothing where it is absent, damaged or of another one."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        if (content := self._read_sealed()) is None:
            return []
        file = pq.ParquetFile(pa.BufferReader(content))
        table = file.read(columns=[name for name in columns if name in file.schema_arrow.names])
        absent = dict.fromkeys(set(columns) - set(table.column_names))
        return [{**absent, **row} for row in table.to_pylist()]

    def _read_sealed(self) -> bytes | None:
        """The index as a file, if it is whole and of this optbench."""
        with suppress(OSError):
            content = (self.folder / "index" / "trials.parquet").read_bytes()
            if (self.folder / "index" / "seal").read_text() == _index_seal(content):
                return content
        return None

    def index(self) -> "pd.DataFrame":
        """A row for each stored trial, by id; `index/trials.parquet` brought up to date.

        Columns: id, task, optimizer, setting (equal for trials that differ by their seed alone), seed,
        status, the parts of the config as JSON (config.task, config.optimizer, ...), and the figures of
        summary, timing and environment by name. Only files that the index has not seen, or that have changed
        since, are read.

        Raises:
            UsageError: a later optbench wrote one of the trials.
        """
        import pandas as pd

        known = self._read_index()
        modified = self._modified()
        if dict(zip(known["id"].tolist(), known["modified_ns"].tolist(), strict=True)) == modified:
            return known
        rows: list[dict[Any, Any]] = [
            row for row in known.to_dict("records") if modified.get(row["id"]) == row["modified_ns"]
        ]
        rows += [
            {**_row(record), "modified_ns": modified[trial_id]}
            for trial_id in modified.keys() - {row["id"] for row in rows}
            if (record := self.read(trial_id)) is not None
        ]
        frame = pd.DataFrame(sorted(rows, key=lambda row: str(row["id"])), columns=None if rows else _COLUMNS)
        with suppress(OSError, TypeError, ValueError, OverflowError):  # the index only saves time
            content = frame.to_parquet(index=False)
            self.write("index/trials.parquet", content)
            self.write("index/seal", _index_seal(content))
        return frame

    def _read_index(self) -> "pd.DataFrame":
        """The index as it was last written; empty where it is absent, damaged or of another optbench."""
        import pandas as pd

        content = self._read_sealed()
        return pd.DataFrame(columns=_COLUMNS) if content is None else pd.read_parquet(io.BytesIO(content))

    def _quarantine(self, path: Path) -> None:
        with suppress(OSError):  # in a folder that cannot be written to, it stays
            path = _move(path, self.folder / "quarantine")
        self.quarantined.append(path)

    def _modified(self) -> dict[str, int]:
        """For each stored trial, when its file was last changed, in nanoseconds."""
        modified: dict[str, int] = {}
        if not self._trials.is_dir():
            return modified
        with os.scandir(self._trials) as entries:
            for entry in entries:
                name, _, kind = entry.name.rpartition(".")
                if kind == "json":
                    with suppress(FileNotFoundError):
                        modified[name] = entry.stat().st_mtime_ns
        return modified

    @contextmanager
    def _flushed(self, content: str | bytes) -> Iterator[Path]:
        """A file of its own that holds the content, flushed to the disk; gone afterwards unless moved."""
        path = self.folder / "tmp" / uuid.uuid4().hex
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with path.open("wb") as file:
                file.write(content.encode() if isinstance(content, str) else content)
                file.flush()
                os.fsync(file.fileno())
            yield path
        finally:
            path.unlink(missing_ok=True)


def sweeps(folder: Path) -> list[Store]:
    """The sweeps in a results folder, or the one that the folder itself is; those without a result yet, too."""
    places = (folder, *sorted(folder.glob("*")))
    found = [place for place in places if (place / "trials").is_dir() or (place / "plan.json").is_file()]
    if folder in found:
        return [Store(folder.resolve().parent, folder.resolve().name)]
    return [Store(folder, place.name) for place in found]


def _index_seal(content: bytes) -> str:
    return f"{hashlib.sha256(content).hexdigest()} optbench {__version__} index {_INDEX}"


def _check_schema(record: Mapping[str, Any], path: Path) -> None:
    if record["schema"] > SCHEMA:
        version = record.get("environment", {}).get("packages", {}).get("optbench", "of another version")
        raise UsageError(
            f"{path}: written in schema {record['schema']} by optbench {version}; "
            f"this is optbench {__version__}, which reads schema {SCHEMA}.\n"
            "Install the later optbench, or name another folder with results=<folder>."
        )


def _seal(body: bytes) -> bytes:
    """A JSON object with one more member at its end: the SHA-256 of its bytes without that member."""
    return body[:-1] + f', "sha256": "{hashlib.sha256(body).hexdigest()}"}}'.encode()


def _unseal(content: bytes) -> dict[str, Any] | None:
    """The object that was sealed; None where a byte differs."""
    body = content.rpartition(b', "sha256": ')[0] + b"}"
    return json.loads(body) if _seal(body) == content else None


def _move(path: Path, folder: Path) -> Path:
    """Move a trial's file below a name that is not taken yet."""
    return path.rename(_free_name(path, folder))


def _copy_link(path: Path, folder: Path) -> None:
    """Give a trial's file one more name that is not taken yet."""
    os.link(path, _free_name(path, folder))


def _free_name(path: Path, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    names = (folder / f"{path.stem}.{number}.json" for number in itertools.count(1))
    return next(name for name in names if not name.exists())


def _fsync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
