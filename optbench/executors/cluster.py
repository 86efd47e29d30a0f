"""A Ray cluster, joined or started: its machines, and actors on them. All calls of Ray's library are here."""

import importlib
import logging
import os
import secrets
import signal
import socket
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optbench.errors import UsageError
from optbench.executors.devices import num_cores
from optbench.executors.remote import RemoteSlot

# Ray's own store of objects stays empty; this is little more than the least that it takes.
OBJECT_STORE_BYTES = 100 * 1024**2
WAITING = "waiting"
SECONDS_TO_ANSWER = 10.0


@dataclass(frozen=True, kw_only=True)
class Lost:
    """The answer of an actor that is gone, with its machine or alone.

    Attributes:
        reason: what is known of it, in a sentence.
        was_unfit: it could not even be made, and another one in its place could not either.
    """

    reason: str
    was_unfit: bool


class Cluster:
    """The connection to a cluster; one that was started for it ends with it.

    Args:
        address: of a cluster; "auto" takes the one of this machine, "local" starts one. None takes the one that
            `RAY_ADDRESS` names, or else `ray start` has made here, or else starts one.

    Raises:
        UsageError: Ray is not installed, or the cluster is not there.
    """

    def __init__(self, address: str | None) -> None:
        ray = _ray()
        self._unmute: Callable[[], None] | None = None
        if ray.is_initialized():
            return
        wanted = address or os.environ.get("RAY_ADDRESS") or None
        if wanted is None and not _answers(_current()):
            wanted = "local"
        self._unmute = _mute()
        try:
            with _kept_handler():
                if wanted == "local":
                    _start()
                else:
                    _join(wanted)
        except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
            self._unmute()
            raise UsageError(
                f"executor=ray: no connection to the cluster at {wanted or _current()}: {error}\n"
                "Name another with executor.address=<host:port>, or start one with executor.address=local."
            ) from error

    def machines(self) -> list[Mapping[str, float]]:
        """What each machine that is alive has in all, in Ray's words: CPU, GPU and others."""
        ray = _ray()
        return [node["Resources"] for node in ray.nodes() if node["Alive"]]

    def free(self) -> Mapping[str, float]:
        """What is left of all machines together."""
        ray = _ray()
        found: Mapping[str, float] = ray.available_resources()
        return found

    def start(self, shares: Mapping[str, float]) -> Any:
        """A handle to a new actor that holds a `RemoteSlot`; it begins when a machine has these shares free.

        Ray is never to run anything again by itself: what was lost is for us to decide on.
        """
        ray = _ray()
        made = ray.remote(
            num_cpus=shares.get("CPU", 0),
            num_gpus=shares.get("GPU", 0),
            max_restarts=0,
            max_task_retries=0,
            concurrency_groups={WAITING: 1},  # a call that waits, beside those that give orders, one after the other
            scheduling_strategy="SPREAD",
        )(RemoteSlot)
        return made.remote()

    def events(self, actor: Any) -> Any:
        """A call that asks for what has happened."""
        return actor.events.options(concurrency_group=WAITING).remote()

    def answers(self, asked: Collection[Any], *, seconds: float) -> list[tuple[Any, Any]]:
        """The calls that are answered by now, each with its answer or with `Lost`; waits so long for a first one."""
        ray = _ray()
        if not asked:
            time.sleep(seconds)
            return []
        ready, _ = ray.wait(list(asked), num_returns=1, timeout=seconds)
        return [(call, _answer(call)) for call in ready]

    def end(self, actors: Sequence[Any], *, seconds: float) -> None:
        """Have actors close, and end them after so long at the latest."""
        ray = _ray()
        calls = [actor.close.remote() for actor in actors]
        if calls:
            ray.wait(calls, num_returns=len(calls), timeout=seconds)
        for actor in actors:
            self.kill(actor)

    def kill(self, actor: Any) -> None:
        """End an actor, which may be gone already; the worker process of its slot ends with it."""
        _ray().kill(actor)

    def close(self) -> None:
        """Leave the cluster, or end it."""
        if self._unmute is not None:
            _ray().shutdown()
            self._unmute()


def _ray() -> Any:
    """Ray's library, which takes its time to import."""
    try:
        import ray
    except ImportError as error:
        raise UsageError("executor=ray needs Ray, which is not installed: pip install 'optbench[ray]'") from error
    return ray


def _current() -> str | None:
    """The cluster that was last started on this machine by `ray start`, as Ray notes it; it may have ended since."""
    with suppress(OSError):
        return Path(os.environ.get("RAY_TMPDIR", "/tmp"), "ray", "ray_current_cluster").read_text().strip() or None
    return None


def _answers(address: str | None) -> bool:
    """Whether someone listens at this address; Ray would try for minutes."""
    host, _, port = (address or "").rpartition(":")
    with suppress(OSError, ValueError), socket.create_connection((host, int(port)), timeout=SECONDS_TO_ANSWER):
        return True
    return False


def _join(address: str | None) -> None:
    """Connect to a cluster; None is the current one of this machine."""
    if address is not None and "://" in address:
        raise ValueError("a sweep runs on a machine of the cluster, not through Ray's client")
    if address not in (None, "auto") and not _answers(address):
        raise ConnectionError("nothing answers there")
    _ray().init(address=address, log_to_driver=False, logging_level=logging.ERROR)


def _start() -> None:
    """Start a cluster on this machine, for this process and those that it starts."""
    ray = _ray()
    # A token keeps other users of the machine out. Without this one, Ray would leave its own in the home folder.
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    # Where memory is short, Ray would end a whole slot; the system ends the trial that takes it, which then has a row.
    os.environ.setdefault("RAY_memory_monitor_refresh_ms", "0")
    ray.init(
        address="local",
        num_cpus=num_cores(),
        object_store_memory=OBJECT_STORE_BYTES,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )


def _mute() -> Callable[[], None]:
    """Let Ray not print its machines' troubles amid the progress, by the page; returns what lets it again.

    What matters of them is in the answers, and all of it in Ray's own logs.
    """
    worker: Any = importlib.import_module("ray._private.worker")
    before = getattr(worker, "print_to_stdstream", None)
    worker.print_to_stdstream = lambda *_, **__: None
    return lambda: setattr(worker, "print_to_stdstream", before)


@contextmanager
def _kept_handler() -> Iterator[None]:
    """Ray's start takes SIGTERM for itself; those who had it keep it."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


def _answer(call: Any) -> Any:
    ray = _ray()
    try:
        return ray.get(call)
    except ray.exceptions.RayError as error:
        was_unfit = getattr(error, "actor_init_failed", False) or not isinstance(error, ray.exceptions.RayActorError)
        return Lost(reason=_reason(str(error)), was_unfit=was_unfit)


def _reason(text: str) -> str:
    """The one sentence of Ray's many that says what happened."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    telling = [line for line in lines if line.startswith("The actor is dead because")] or lines[-1:]
    return "".join(telling[:1]).partition(". ")[0] or "no reason is known"
