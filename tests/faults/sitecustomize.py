"""Faults for the regression gate: put before all else on PYTHONPATH, it breaks torch and optbench in its processes.

`OPTBENCH_FAULTS` lists which, separated by commas. Python imports this file by itself when it starts.
"""

import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

FAULTS = [name for name in os.environ.get("OPTBENCH_FAULTS", "").split(",") if name]


def slow_step(factor: float = 1.2) -> None:
    """AdamW's step takes a fifth longer."""
    import torch

    step: Callable[..., Any] = torch.optim.AdamW.step

    def slow(self: torch.optim.AdamW, closure: Callable[[], Any] | None = None) -> Any:
        begun = time.perf_counter()
        found = step(self, closure)
        until = begun + factor * (time.perf_counter() - begun)
        while time.perf_counter() < until:
            pass
        return found

    torch.optim.AdamW.step = slow  # type: ignore[method-assign]


def extra_clone() -> None:
    """Adagrad keeps its sums twice."""
    import torch

    step: Callable[..., Any] = torch.optim.Adagrad.step

    def cloning(self: torch.optim.Adagrad, closure: Callable[[], Any] | None = None) -> Any:
        found = step(self, closure)
        for state in self.state.values():
            state["spare"] = state["sum"].clone()
        return found

    torch.optim.Adagrad.step = cloning  # type: ignore[method-assign]


def no_foreach() -> None:
    """RAdam's foreach goes through its tensors one by one."""
    from torch.optim import radam

    radam._multi_tensor_radam = radam._single_tensor_radam


def wrong_bias_correction() -> None:
    """Adam's first moments, which begin at 0, are not corrected."""
    import torch

    step: Callable[..., Any] = torch.optim.Adam.step

    def wrong(self: torch.optim.Adam, closure: Callable[[], Any] | None = None) -> Any:
        self.num_taken = getattr(self, "num_taken", 0) + 1  # type: ignore[attr-defined]
        (group,) = self.param_groups
        lr, beta = group["lr"], group["betas"][0]
        group["lr"] = lr * (1.0 - beta**self.num_taken)  # type: ignore[attr-defined]
        found = step(self, closure)
        group["lr"] = lr
        return found

    torch.optim.Adam.step = wrong  # type: ignore[method-assign]


def diverging_seed() -> None:
    """SGD diverges with seed 1 alone."""
    import torch

    from optbench.seeding import stream

    step: Callable[..., Any] = torch.optim.SGD.step

    def diverging(self: torch.optim.SGD, closure: Callable[[], Any] | None = None) -> Any:
        found = step(self, closure)
        if torch.initial_seed() == stream(1, "noise"):
            with torch.no_grad():
                self.param_groups[0]["params"][0].fill_(float("nan"))
        return found

    torch.optim.SGD.step = diverging  # type: ignore[method-assign]


def nan_metric() -> None:
    """The test loss of quadratics is no number, though they train as ever."""
    from optbench.tasks.quadratic import Quadratic

    def evaluate(_: Quadratic) -> dict[str, float]:
        return {"test_loss": float("nan")}

    Quadratic.evaluate = evaluate  # type: ignore[method-assign]


def dies() -> None:
    """The process that measures steps is killed before it answers."""
    if sys.argv[0].endswith("instrument.py"):
        os.kill(os.getpid(), signal.SIGKILL)


for name in FAULTS:
    globals()[name]()
