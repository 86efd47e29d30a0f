"""Of several processes on one folder, one runs a trial."""

import errno
import fcntl
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from optbench import lease

HOLDER = """
import subprocess, sys, time
from pathlib import Path
from optbench import lease
assert lease.take(Path(sys.argv[1]), "a") is not None
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
print(child.pid, flush=True)
time.sleep(60)
"""


def test_a_lease_is_had_by_one(tmp_path: Path) -> None:
    first = lease.take(tmp_path, "a")
    assert first is not None
    assert lease.take(tmp_path, "a") is None
    other = lease.take(tmp_path, "b")
    assert other is not None
    first.release()
    again = lease.take(tmp_path, "a")
    assert again is not None
    again.release()
    other.release()
    assert not list((tmp_path / lease.FOLDER).iterdir())


def test_who_has_a_lease_is_known(tmp_path: Path) -> None:
    assert lease.held(tmp_path) == {}
    taken = lease.take(tmp_path, "a")
    assert taken is not None
    (holder,) = lease.held(tmp_path).values()
    assert holder.pid == os.getpid()
    taken.release()
    assert lease.held(tmp_path) == {}


def test_a_killed_process_has_no_lease_even_while_its_child_lives(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    child = int(process.stdout.readline())
    assert lease.take(tmp_path, "a") is None
    process.kill()
    process.wait()
    process.stdout.close()
    taken = lease.take(tmp_path, "a")
    assert taken is not None
    taken.release()
    os.kill(child, signal.SIGKILL)


def test_a_forked_child_keeps_no_lease_alive(tmp_path: Path) -> None:
    taken = lease.take(tmp_path, "a")
    assert taken is not None
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:  # as a process that loads data
        os.close(writer)
        os.read(reader, 1)
        os._exit(0)
    taken.release()
    again = lease.take(tmp_path, "a")
    os.close(writer)
    os.waitpid(child, 0)
    os.close(reader)
    assert again is not None
    again.release()


def test_of_many_at_once_one_has_the_lease_at_a_time(tmp_path: Path) -> None:
    inside, most, lock = 0, 0, threading.Lock()

    def work(_: int) -> None:
        nonlocal inside, most
        count = 0
        while count < 25:  # however seldom a busy machine lets it come to its turn
            if (taken := lease.take(tmp_path, "a")) is not None:
                with lock:
                    inside += 1
                    most = max(most, inside)
                with lock:
                    inside -= 1
                taken.release()
                count += 1

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert most == 1


def test_where_there_are_no_locks_a_trial_runs_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    first, second = lease.take(tmp_path, "a"), lease.take(tmp_path, "a")
    assert first is not None
    assert second is not None
    first.release()
    second.release()


def test_a_folder_that_cannot_be_written_to_is_an_error(tmp_path: Path) -> None:
    (tmp_path / lease.FOLDER).write_text("a file where the folder should be")
    with pytest.raises(OSError, match="File exists"):
        lease.take(tmp_path, "a")
