"""Leases: of several processes on one results folder, one runs a trial.

A lease is a lock by `flock` on `leases/<id>`, which the system lets go of when its process ends, however that comes
about. So there is no lease of the dead, and no clock is involved. A file system without `flock` (some NFS and Lustre
mounts) has no leases: there a trial may run twice, but of two results one is kept whole.
"""

import errno
import fcntl
import json
import os
import platform
import time
import weakref
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

FOLDER = "leases"
UNSUPPORTED = frozenset({errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL})


@dataclass(frozen=True, kw_only=True)
class Holder:
    """Who is at a trial.

    Attributes:
        host: the machine.
        pid: the process there.
        since: when it began, in seconds of the wall clock: for people, never compared.
    """

    host: str
    pid: int
    since: float


class Lease:
    """The right to run one trial; `take` gives it."""

    def __init__(self, descriptor: int, path: Path) -> None:
        self._descriptor = descriptor
        self._path = path
        _leases.add(self)

    def release(self) -> None:
        """Let others have it."""
        self._path.unlink(missing_ok=True)
        self._forget()

    def _forget(self) -> None:
        """Close the file; a forked child, such as one that loads data, must not keep the lock alive."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


_leases: weakref.WeakSet[Lease] = weakref.WeakSet()


def _forget_all() -> None:
    for taken in list(_leases):
        taken._forget()


os.register_at_fork(after_in_child=_forget_all)


def take(folder: Path, trial_id: str) -> Lease | None:
    """The lease of a trial; None where another process has it.

    Args:
        folder: of the sweep.
        trial_id: of the trial.

    Raises:
        OSError: the folder cannot be written to.
    """
    path = folder / FOLDER / trial_id
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        except OSError as error:
            if error.errno not in UNSUPPORTED:
                os.close(descriptor)
                raise
        if _is_still_there(descriptor, path):
            break
        os.close(descriptor)  # its last holder removed it between our opening and our locking it
    holder = {"host": platform.node(), "pid": os.getpid(), "since": time.time()}
    with suppress(OSError):  # only `status` reads it
        os.ftruncate(descriptor, 0)
        os.write(descriptor, json.dumps(holder).encode())
    return Lease(descriptor, path)


def held(folder: Path) -> Mapping[str, Holder]:
    """Who is at which trial of a sweep, by id."""
    found: dict[str, Holder] = {}
    with suppress(FileNotFoundError):
        for path in sorted((folder / FOLDER).iterdir()):
            if (holder := _holder(path)) is not None:
                found[path.name] = holder
    return found


def _holder(path: Path) -> Holder | None:
    with suppress(OSError, ValueError, TypeError), path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return Holder(**json.loads(file.read()))
    return None


def _is_still_there(descriptor: int, path: Path) -> bool:
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(descriptor), path.stat())
    return False
