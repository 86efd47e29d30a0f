"""Tasks that go wrong in ways of their own, for tests of those who run them."""

import ctypes
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn


class Line:
    """Fits a line; `at_step` is called before each step with its number, and goes wrong in some."""

    def __init__(self, *, seed: int, device: torch.device, note: str | None = None) -> None:
        self.model = nn.Linear(1, 1).to(device)
        self.x = torch.linspace(-1, 1, 20, device=device)[:, None] + seed
        self.note = None if note is None else Path(note)
        if self.note is not None:
            with self.note.open("a") as file:
                file.write(f"{os.getpid()} {seed}\n")

    def batches(self) -> Iterator[int]:
        step = 0
        while True:
            step += 1
            yield step

    def loss(self, batch: int) -> Tensor:
        self.at_step(batch)
        return ((self.model(self.x) - self.x) ** 2).mean()

    @torch.no_grad()
    def evaluate(self) -> Mapping[str, float]:
        return {"test_loss": ((self.model(self.x) - self.x) ** 2).mean().item()}

    def at_step(self, step: int) -> None:
        pass


class Slow(Line):
    """Takes its time for each step."""

    def __init__(self, *, pause: float, seed: int, device: torch.device, note: str | None = None) -> None:
        super().__init__(seed=seed, device=device, note=note)
        self.pause = pause

    def at_step(self, step: int) -> None:
        time.sleep(self.pause)


class Killed(Line):
    """Is killed, as the system does for want of memory."""

    def at_step(self, step: int) -> None:
        if step == 3:
            time.sleep(1.5)  # until it is heard how far it came
            os.kill(os.getpid(), signal.SIGKILL)


class Segfault(Line):
    """Reads where nothing is."""

    def at_step(self, step: int) -> None:
        if step == 3:
            ctypes.string_at(0)


class Exits(Line):
    """Ends its process without a word."""

    def at_step(self, step: int) -> None:
        if step == 3:
            os._exit(7)


class Hangs(Line):
    """Hangs, ignores being asked to stop, and has a child that does the same."""

    def __init__(self, *, seed: int, device: torch.device, note: str | None = None) -> None:
        super().__init__(seed=seed, device=device)
        self.pids = None if note is None else Path(note)

    def at_step(self, step: int) -> None:
        if step == 3:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            script = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
            child = subprocess.Popen([sys.executable, "-c", script])
            if self.pids is not None:
                self.pids.write_text(f"{os.getpid()} {child.pid}")
            time.sleep(600)


class Stopped(Line):
    """Is stopped by a signal, with Python's lock held."""

    def at_step(self, step: int) -> None:
        if step == 3:
            os.kill(os.getpid(), signal.SIGSTOP)


class Endless(Line):
    """Makes progress for ever."""

    def at_step(self, step: int) -> None:
        time.sleep(0.05)


class OutOfMemory(Line):
    """Asks for more memory than it may have."""

    def at_step(self, step: int) -> None:
        if step == 3:
            used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (used + 2**28, resource.RLIM_INFINITY))
            torch.empty(2**32)


class CudaError(Line):
    """Raises what torch raises when a kernel has failed; the context of the GPU is of no use after it."""

    def at_step(self, step: int) -> None:
        if step == 3:
            raise RuntimeError("CUDA error: device-side assert triggered")


class Raises(Line):
    """Has a fault, and prints."""

    def at_step(self, step: int) -> None:
        if step == 3:
            print("the last thing that was printed", flush=True)
            raise ValueError("a fault of its own")


class Diverges(Line):
    """Has a loss that is no number."""

    def loss(self, batch: int) -> Tensor:
        loss = super().loss(batch)
        return loss * float("nan") if batch == 3 else loss


class WhichProcess(Line):
    """Says in its metrics which process it is in."""

    def evaluate(self) -> Mapping[str, float]:
        return {**super().evaluate(), "pid": float(os.getpid())}


class Environment(Line):
    """Says in its metrics what its process was born with."""

    def evaluate(self) -> Mapping[str, float]:
        return {
            **super().evaluate(),
            "gpu": float(os.environ.get("CUDA_VISIBLE_DEVICES", "-1")),
            "omp_threads": float(os.environ.get("OMP_NUM_THREADS", "-1")),
        }


class LeavesChild(Line):
    """Ends its process, and leaves a child that holds all that was open."""

    def at_step(self, step: int) -> None:
        if step == 3:
            if os.fork() == 0:
                time.sleep(60)
                os._exit(0)
            os._exit(7)


class LeavesTraces(Line):
    """Changes its process for good."""

    def at_step(self, step: int) -> None:
        if step == 3:
            torch.set_default_dtype(torch.float64)
            torch.set_grad_enabled(False)
            torch.use_deterministic_algorithms(True)
            torch.set_num_threads(2)
            os.chdir("/")


class Draws(Line):
    """Draws from every generator of the process."""

    def loss(self, batch: int) -> Tensor:
        noise = random.random() + float(np.random.rand()) + torch.rand(()).item()
        return super().loss(batch) * noise
