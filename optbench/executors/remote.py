"""A slot on any machine of a cluster, with its driver elsewhere: what a Ray actor holds. Nothing here imports Ray."""

import os
import platform
import queue
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path

from optbench import __version__
from optbench.control import Stop
from optbench.execution import Checked, Context, Event, Held, Job, Refused
from optbench.executors.devices import visible_gpus
from optbench.executors.slot import Slot
from optbench.trial import Trial

SECONDS_TO_WAIT = 0.25
SECONDS_TO_HOLD = 2.0
SECONDS_UNTIL_SEEN = 3.0
SECONDS_TO_END = 5.0

News = Event | Checked
Order = Callable[[Slot], Sequence[News] | None]


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What a slot needs to know of its driver.

    Attributes:
        context: of the sweep.
        environment: variables that the worker process is born with.
        version: of the driver's optbench.
        path: where the driver's Python looks for modules; folders that exist here, too, are looked in last.
        probe: a file of the driver in the results folder.
    """

    context: Context
    environment: Mapping[str, str]
    version: str
    path: Sequence[str]
    probe: str


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a slot is: the machine, and which of its GPUs."""

    host: str
    gpus: Sequence[str]


class RemoteSlot:
    """A slot that is told what to do by calls that return at once, and asked for what has happened by one that waits.

    One thread owns the slot and all that it starts: Linux ends a worker process together with the thread that started
    it, and the threads that carry out calls come and go.
    """

    def __init__(self) -> None:
        self._orders: queue.SimpleQueue[Order] = queue.SimpleQueue()
        self._events: queue.SimpleQueue[News] = queue.SimpleQueue()
        self._wakes, self._wake = os.pipe()
        self._thread: threading.Thread | None = None
        self._is_checking = False
        self._ends = False

    def open(self, setting: Setting) -> Place | Refused:
        """Start the worker process, if this machine is fit for the sweep; where it is, or why it is not."""
        if (reason := _misfit(setting)) is not None:
            return Refused(text=reason)
        sys.path += [folder for folder in setting.path if folder not in sys.path and Path(folder).exists()]
        devices = [] if "CUDA_VISIBLE_DEVICES" in setting.environment else visible_gpus()
        place = Place(host=platform.node(), gpus=devices)
        self._thread = threading.Thread(target=self._work, args=(setting, place), daemon=True)
        self._thread.start()
        return place

    def events(self) -> list[News]:
        """What has happened since the last call; waits a while for something to happen."""
        found: list[News] = []
        with suppress(queue.Empty):
            found.append(self._events.get(timeout=SECONDS_TO_HOLD))
            while True:
                found.append(self._events.get_nowait())
        return found

    def check(self, trials: Sequence[Trial]) -> None:
        """Look at trials before anything trains; `events` gives a `Checked`."""

        def check(slot: Slot) -> None:
            self._is_checking = True
            slot.check(trials)

        self._order(check)

    def give(self, job: Job) -> None:
        """Run a trial; `events` gives `Finished`, `Held` or `Refused` as its last event, `Held` if it never began."""
        self._order(lambda slot: slot.give(job))

    def stop(self, trial_id: str, status: Stop) -> None:
        """Ask this trial to end after the step under way."""
        self._order(lambda slot: slot.stop(status) if _is_at(slot, trial_id) else None)

    def preempt(self) -> None:
        """Ask the trial to keep a checkpoint and end."""
        self._order(Slot.preempt)

    def kill(self) -> None:
        """End the worker process; its trial is preempted."""
        self._order(Slot.kill)

    def close(self) -> None:
        """End the worker process, and wait for it to be gone."""
        self._ends = True
        self._order(Slot.close)
        if self._thread is not None:
            self._thread.join(SECONDS_TO_END)

    def _order(self, order: Order) -> None:
        self._orders.put(order)
        os.write(self._wake, b".")

    def _work(self, setting: Setting, place: Place) -> None:
        name = " ".join((place.host, *place.gpus))
        slot = Slot(name, context=setting.context, environment=setting.environment)
        try:
            slot.start()
            while not self._ends:
                self._obey(slot)
                self._tell(slot.poll())
                if self._is_checking and not slot.is_alive:  # what ends a process in a check is a row in a trial
                    self._tell([Checked(warnings=(), error=None)])
                wait([self._wakes, *([slot.fileno()] if slot.is_alive else [])], SECONDS_TO_WAIT)
        except Exception as error:
            self._tell([Refused(text=str(error) or repr(error), is_store=isinstance(error, OSError))])
        finally:
            slot.close()

    def _obey(self, slot: Slot) -> None:
        """Carry out what was ordered."""
        while wait([self._wakes], 0):
            os.read(self._wakes, 1)
            trial = slot.trial
            told = self._orders.get()(slot) or ()
            self._tell(told)
            if trial is not None and slot.is_idle and not told:  # it had not begun, and leaves no row
                self._tell([Held(trial_id=trial.id)])

    def _tell(self, events: Sequence[News]) -> None:
        for event in events:
            self._is_checking = self._is_checking and not isinstance(event, Checked)
            self._events.put(event)


def _is_at(slot: Slot, trial_id: str) -> bool:
    return slot.trial is not None and slot.trial.id == trial_id


def _misfit(setting: Setting) -> str | None:
    """Why no trial of this driver's can run on this machine."""
    host = platform.node()
    if setting.version != __version__:
        return (
            f"{host} has optbench {__version__}, and this is optbench {setting.version}: "
            "install the same one on all machines of the cluster."
        )
    deadline = time.monotonic() + SECONDS_UNTIL_SEEN  # a network's file system may lag behind
    while not Path(setting.probe).exists():
        if time.monotonic() > deadline:
            return (
                f"{host} does not see {setting.context.results}: results travel through that folder, so all machines "
                "of the cluster need it at the same path.\nName a shared one with results=<folder>."
            )
        time.sleep(SECONDS_TO_WAIT)
    return None
