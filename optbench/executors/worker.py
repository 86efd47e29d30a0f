"""The process that runs trials, one after another, for a `Slot`: `optbench.executors.worker <socket> <guard>`.

It is in a process group of its own, and so are the processes that a trial starts: they can be ended together. When its
owner is gone, it ends itself and them, at once: whoever comes next finds the lease free.
"""

import contextlib
import faulthandler
import gc
import os
import queue
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from optbench.control import Control
from optbench.errors import UsageError
from optbench.execution import Check, Checked, Context, Event, Finished, Job, Note, Progressed, StopTrial
from optbench.measurement import Status
from optbench.notes import listen

SECONDS_BETWEEN_SIGNS = 1.0


def main() -> None:
    """Do what the owner says, until it has nothing more to say."""
    _end_with_owner()
    for number in (signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)  # the owner hears of them, and asks us to stop
    # Slurm sends this one to every process of a job. What a trial starts does not inherit it, as if it were ignored.
    signal.signal(signal.SIGTERM, lambda *_: None)
    faulthandler.enable()
    os.set_inheritable(int(sys.argv[1]), False)  # what a trial starts must not keep the connection open
    owner: Connection[Any, Any] = Connection(int(sys.argv[1]))
    context, sys.path[:] = owner.recv()
    _Worker(owner, context).work()
    with contextlib.suppress(OSError):
        sys.stdout.flush()
    os._exit(0)  # nothing is left to be done, and tearing down what libraries hold takes its time


class _Worker:
    def __init__(self, owner: "Connection[Any, Any]", context: Context) -> None:
        self._owner = owner
        self._context = context
        self._orders: queue.SimpleQueue[Job | Check | None] = queue.SimpleQueue()
        self._sending = threading.Lock()
        self._trial_id: str | None = None
        self._control = Control()
        self._retires = False

    def work(self) -> None:
        threading.Thread(target=self._listen, daemon=True).start()
        import torch._dynamo  # while the owner is still planning; the first optimizer would import it

        from optbench.checks import build_logger
        from optbench.executors.attempt import attempt
        from optbench.store import Store

        store = Store(Path(self._context.results), self._context.sweep)
        listen(lambda text: self._send(Note(text=text)))
        logger, is_first = None, True
        threading.Thread(target=self._give_signs, daemon=True).start()
        while not self._retires and (order := self._orders.get()) is not None:
            if isinstance(order, Check):
                self._send(self._check(order))
                continue
            logger = logger or build_logger(self._context)
            self._control = Control()
            self._trial_id = order.trial.id
            # torch is there. What happens from here on, even while the trial's classes are imported, is the trial's.
            self._send(Progressed(trial_id=order.trial.id, step=0, loss=None))
            attempt(
                order,
                context=self._context,
                store=store,
                logger=logger,
                control=self._control,
                report=self._report,
                log=store.log(order.trial.id),
                is_first=is_first,
            )
            self._trial_id, is_first = None, False
            if torch.cuda.is_initialized():  # who shares the GPU shall not run out of memory for what nobody uses
                gc.collect()
                torch.cuda.empty_cache()

    def _check(self, order: Check) -> Checked:
        from optbench.checks import check_all

        try:
            return Checked(warnings=check_all(order.trials, self._context), error=None)
        except UsageError as error:
            return Checked(warnings=(), error=str(error))

    def _report(self, event: Event) -> None:
        if isinstance(event, Finished):
            # After an error of the GPU its context may be of no use; after a lack of memory it may be in pieces.
            import torch

            told = str(event.summary.get("reason"))
            self._retires = event.status is Status.OUT_OF_MEMORY or (
                event.status is Status.CRASHED and ("CUDA" in told or torch.cuda.is_initialized())
            )
            event = replace(event, is_last=self._retires)
        self._send(event)

    def _send(self, message: object) -> None:
        with self._sending:
            try:
                self._owner.send(message)
            except OSError:
                _end_group()

    def _listen(self) -> None:
        while True:
            try:
                message = self._owner.recv()
            except (EOFError, OSError):
                _end_group()
                return
            if isinstance(message, StopTrial):
                if message.trial_id == self._trial_id:
                    self._control.stop = message.status
            else:
                self._orders.put(message)

    def _give_signs(self) -> None:
        pause = threading.Event()
        while not pause.wait(SECONDS_BETWEEN_SIGNS):
            trial_id, control = self._trial_id, self._control
            if trial_id is not None:
                self._send(Progressed(trial_id=trial_id, step=control.step, loss=control.loss))


def _end_group() -> None:
    """End this process and those that it has started."""
    os.killpg(os.getpgid(0), signal.SIGKILL)


def _end_with_owner() -> None:
    """Have a guard end the whole group when the owner is gone, even while a trial is stopped or holds Python's lock.

    The guard waits for the end of a pipe that the owner alone can write to.
    """
    guard = int(sys.argv[2])
    subprocess.Popen(
        ["/bin/sh", "-c", "read _; kill -KILL 0"], stdin=guard, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    os.close(guard)


if __name__ == "__main__":
    main()
