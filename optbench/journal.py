"""Optuna's journal of a study on the disk: opened whole, whatever happened to the processes that wrote to it."""

import fcntl
import itertools
import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

from optbench.lease import UNSUPPORTED

FOLDER = "studies"

# Its lines about every trial are no news beside our own display.
optuna.logging.set_verbosity(optuna.logging.ERROR)


class Lock(JournalFileOpenLock):
    """The right to write to a journal, or to decide by what is in it; who has it may take it once more.

    It is an `flock`, which the system lets go of when its process ends: Optuna's own locks are files that outlive
    their process, and stop the next one for half a minute. Where there is no `flock`, Optuna's serves.

    Whoever takes the lock finds a journal that ends with a whole line: what a killed process or a full disk left
    behind would otherwise be glued to the next line, and nobody could read either.
    """

    def __init__(self, journal: Path) -> None:
        super().__init__(str(journal))
        self._journal = journal
        self._path = journal.with_suffix(".lock")
        self._is_file = False
        self._descriptor = -1
        self._depth = 0

    def acquire(self) -> bool:
        """Wait for it.

        Raises:
            OSError: the folder cannot be written to.
        """
        if self._depth == 0:
            self._take()
            try:
                _repair(self._journal)
            except BaseException:
                self._let_go()
                raise
        self._depth += 1
        return True

    def release(self) -> None:
        """Let others have it, unless it was taken more than once."""
        self._depth -= 1
        if self._depth == 0:
            self._let_go()

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def _take(self) -> None:
        self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        except BaseException as error:
            os.close(self._descriptor)
            if not isinstance(error, OSError) or error.errno not in UNSUPPORTED:
                raise
            self._is_file = super().acquire()

    def _let_go(self) -> None:
        if self._is_file:
            super().release()
        else:
            os.close(self._descriptor)


class Backend(JournalFileBackend):
    """Optuna's file, written without waiting for the disk at each of the ten lines that a trial makes.

    The truth is in the store. A killed process loses no line; a machine without power may lose the last ones, and then
    the same points are asked for again, or, if that left a hole, the study is made anew.
    """

    def __init__(self, journal: Path, lock: Lock) -> None:
        super().__init__(str(journal), lock_obj=lock)
        self._journal = journal
        self._held = lock

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Append a line for each.

        Raises:
            OSError: the disk is full or not writable.
        """
        lines = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs)
        with self._held, self._journal.open("ab") as file:
            file.write(lines.encode())


def open_study(
    journal: Path, *, lock: Lock, direction: str, check: Callable[[optuna.Study], object]
) -> tuple[optuna.Study, Path | None]:
    """The study that a journal holds, or a new one.

    Args:
        journal: its file.
        lock: of this journal.
        direction: `min` or `max`, of a new study.
        check: raises where a study does not hold what it should.

    Returns:
        The study, and where a journal has been moved to that was damaged elsewhere than at its end.

    Raises:
        OSError: the folder cannot be written to.
    """
    journal.parent.mkdir(parents=True, exist_ok=True)
    with lock:
        _cut_unreadable_line(journal)
        try:
            study = _open(journal, lock=lock, direction=direction)
            check(study)
            return study, None
        except OSError:
            raise
        except Exception:  # whatever Optuna makes of lines that are not its own
            names = (journal.with_suffix(f".{number}.damaged") for number in itertools.count(1))
            damaged = journal.rename(next(name for name in names if not name.exists()))
            return _open(journal, lock=lock, direction=direction), damaged


def _open(journal: Path, *, lock: Lock, direction: str) -> optuna.Study:
    storage = JournalStorage(Backend(journal, lock))
    return optuna.create_study(
        study_name=journal.stem,
        storage=storage,
        direction="minimize" if direction == "min" else "maximize",
        load_if_exists=True,
    )


def _repair(journal: Path) -> None:
    """Cut off what stands behind the last line break."""
    with suppress(FileNotFoundError), journal.open("rb+") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(size - 1, 0))
        if file.read() not in (b"\n", b""):
            file.seek(0)
            _truncate(file.fileno(), file.read().rfind(b"\n") + 1)


def _cut_unreadable_line(journal: Path) -> None:
    """Cut off a last line that is none, though it has its line break: Optuna sees no fault in it until the next one."""
    with suppress(FileNotFoundError), journal.open("rb+") as file:
        content = file.read()
        last = content[:-1].rpartition(b"\n")[2] + content[-1:]
        try:
            is_readable = not last or isinstance(json.loads(last), dict)
        except ValueError:
            is_readable = False
        if not is_readable:
            _truncate(file.fileno(), len(content) - len(last))


def _truncate(descriptor: int, size: int) -> None:
    os.ftruncate(descriptor, size)
    os.fsync(descriptor)
