"""The process that measures steps for one side of a comparison: `python -P <this file> <descriptor>`.

It is run as a file, by the interpreter of the side, so that both sides are measured by the same code whatever their
optbench is: what it imports is the side's. The question comes on standard input as JSON, answers go to the descriptor,
a line of JSON each.
"""

import gc
import itertools
import json
import math
import os
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TextIO

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import optbench
from optbench import building, memory, stepper
from optbench.component import Capability
from optbench.composing import composing
from optbench.device import configured, resolve_device
from optbench.environment import environment
from optbench.errors import UsageError
from optbench.optim import build as optim_build
from optbench.prediction import NotPredictable, predict
from optbench.trial import Trial

WIDTH, DEPTH, VOCABULARY = 64, 3, 512
NUM_GRADIENTS = 4
NUM_WARMUP_STEPS = 4
# Of the kernel in succession, beside a step.
MAX_RUNS = 100
# A refresh that comes more seldom is not waited for: the steps between two are timed one by one.
MAX_PERIOD = 20
SECONDS_BETWEEN_LOOKS = 0.5


class Shapes(nn.Module):
    """The parameters of a small transformer, 182,336 numbers in 39 tensors, without what would use them."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, WIDTH)
        self.blocks = nn.ModuleList(
            nn.ModuleDict(
                {
                    "norm_1": nn.LayerNorm(WIDTH),
                    "attention": nn.Linear(WIDTH, 3 * WIDTH),
                    "projection": nn.Linear(WIDTH, WIDTH),
                    "norm_2": nn.LayerNorm(WIDTH),
                    "expansion": nn.Linear(WIDTH, 4 * WIDTH),
                    "contraction": nn.Linear(4 * WIDTH, WIDTH),
                }
            )
            for _ in range(DEPTH)
        )
        self.norm = nn.LayerNorm(WIDTH)


class Stepping:
    """An optimizer on fixed shapes with given gradients, in the form that it wants them: nothing is trained.

    Args:
        trial: its optimizer and hardware; its task has no part in it.
        device: where.

    Attributes:
        optimizer: that takes the steps.
        period: steps that do the work of any others in succession; 1 where that would be too many.
    """

    def __init__(self, trial: Trial, device: torch.device) -> None:
        torch.manual_seed(0)
        component = building.optimizer_component(trial)
        model = Shapes().to(device)
        if trial.hardware.precision.startswith("bf16_params"):
            model = model.bfloat16()
        self.parameters = list(model.parameters())
        generator = torch.Generator().manual_seed(0)
        gradients = [
            [torch.randn(one.shape, generator=generator).to(one) * 0.01 for one in self.parameters]
            for _ in range(NUM_GRADIENTS)
        ]
        self._gradients = itertools.cycle(gradients)
        self.optimizer = optim_build.build(component, model, param_groups=None, lr_factor=trial.lr_factor)
        self.period = component.period if component.period <= MAX_PERIOD else 1
        self._wants_graph = Capability.CREATE_GRAPH in component.capabilities
        self._wants_closure = bool({Capability.CLOSURE, Capability.EXTRA_PASS} & component.capabilities)
        self._prepares_first = Capability.CLOSURE not in component.capabilities
        if Capability.TRAIN_EVAL in component.capabilities:
            getattr(self.optimizer, "train")()  # noqa: B009  # of such optimizers alone
        self._step: Callable[..., Any] = self.optimizer.step
        if trial.hardware.compile_step:
            stepper.rates_as_tensors(self.optimizer)
            self._step = torch.compile(self.optimizer.step)

    def prepare(self) -> None:
        """Give the parameters their next gradients."""
        if self._prepares_first:
            self._give()

    def step(self) -> None:
        """The update, and nothing else; of an optimizer that asks for gradients by itself, with what that takes."""
        if self._wants_closure:
            self._step(self._give)
        else:
            self._step()

    def take(self, num_steps: int = 1) -> None:
        """Take steps that nobody times."""
        for _ in range(num_steps):
            self.prepare()
            self.step()

    def _give(self) -> Tensor:
        gradients = next(self._gradients)
        if self._wants_graph:  # of a loss whose second derivative is there
            with torch.enable_grad():
                pairs = zip(self.parameters, gradients, strict=True)
                loss = torch.stack([(one * gradient + 0.5 * one**2).sum() for one, gradient in pairs]).sum()
                gradients = list(torch.autograd.grad(loss, self.parameters, create_graph=True))
        for parameter, gradient in zip(self.parameters, gradients, strict=True):
            parameter.grad = gradient if self._wants_graph else gradient.clone()
        return torch.zeros((), device=self.parameters[0].device)


class Kernel:
    """What no optimizer has a part in: sums and products over tensors of the same shapes, as a measure of the machine.

    Args:
        device: where.

    Attributes:
        seconds: of one run, about.
    """

    def __init__(self, device: torch.device) -> None:
        self._tensors = [
            [torch.full_like(parameter, 0.5, requires_grad=False).to(device) for _ in range(3)]
            for parameter in Shapes().parameters()
        ]
        self.seconds = min(_timed(self, device) for _ in range(NUM_WARMUP_STEPS))

    @torch.no_grad()
    def __call__(self, num_runs: int = 1) -> None:
        """Three operations for each tensor, so many times."""
        for _ in range(num_runs):
            for value, slope, mean in self._tensors:
                mean.mul_(0.9).add_(slope, alpha=0.1)
                value.add_(mean, alpha=-0.001)

    def num_runs(self, seconds: float) -> int:
        """The runs that take about so long: what comes between meets a long step more often than a short kernel."""
        return min(max(1, round(seconds / self.seconds)), MAX_RUNS)


class _Operations(TorchDispatchMode):
    """Counts what is dispatched."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call, unused-ignore]
        self.count = 0

    def __torch_dispatch__(  # type: ignore[no-untyped-def]
        self, func, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        del types
        self.count += 1
        return func(*args, **(kwargs or {}))


def exact(trial: Trial, device: torch.device) -> dict[str, int]:
    """The bytes of the state, and the operations that the steps of a period dispatch."""
    stepping = Stepping(trial, device)
    stepping.take(NUM_WARMUP_STEPS)
    found = {"state_bytes": memory.state_bytes(stepping.optimizer)}
    if not trial.hardware.compile_step:
        operations = _Operations()
        with suppress(RuntimeError):  # what compiles its own step cannot be looked into
            for _ in range(stepping.period):
                stepping.prepare()
                with operations:
                    stepping.step()
            found["num_operations"] = operations.count
    return found


class Timer:
    """Times the steps of one subject, block by block, each period in turn with the kernel.

    Args:
        trial: its optimizer and hardware.
        device: where; it should be idle.
        kernel: on that device.
    """

    def __init__(self, trial: Trial, device: torch.device, *, kernel: Kernel) -> None:
        self._device, self._kernel = device, kernel
        self._own: list[float] = []
        self._others: list[float] = []
        self._stepping = Stepping(trial, device)
        self._stepping.take(NUM_WARMUP_STEPS)
        self._num_runs = kernel.num_runs(min(self._period() for _ in range(2)))

    def block(self, seconds: float) -> None:
        """Take steps for so long; whole periods, at least one."""
        until = time.perf_counter() + seconds
        while True:
            self._own.append(self._period())
            self._others.append(_timed(partial(self._kernel, self._num_runs), self._device) / self._num_runs)
            if time.perf_counter() >= until:
                return

    def _period(self) -> float:
        """Seconds of a step, the mean over a period."""
        spent = 0.0
        for _ in range(self._stepping.period):
            self._stepping.prepare()
            spent += _timed(self._stepping.step, self._device)
        return spent / self._stepping.period

    def sample(self) -> dict[str, float]:
        """The fields of `optbench.regress.readings.Sample`."""
        return {
            **dict(zip(("best", "p10", "median"), _quantiles(self._own), strict=True)),
            **dict(zip(("kernel_best", "kernel_p10", "kernel_median"), _quantiles(self._others), strict=True)),
            "num_steps": len(self._own) * self._stepping.period,
        }


def subject(trial: Trial) -> str:
    """What the figures are of: the optimizer, and how its step is computed where that is asked for."""
    hardware = trial.hardware
    words = [trial.optimizer.name, hardware.implementation, "compiled" if hardware.compile_step else None]
    return " ".join(word for word in (*words, None if hardware.precision == "fp32" else hardware.precision) if word)


def _timed(call: Callable[[], object], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    begun = time.perf_counter()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - begun


def _quantiles(values: Sequence[float]) -> tuple[float, float, float]:
    ordered = sorted(values)
    last = len(ordered) - 1
    return ordered[0], ordered[math.floor(0.1 * last)], ordered[last // 2]


def _answers(question: Mapping[str, Any], told: TextIO) -> Iterator[Mapping[str, Any]]:
    folder = question["config_dir"]
    with composing(Path(folder) if folder else None) as composer:
        configs = [
            config
            for overrides in question["steps"].values()
            for config in composer.configs([*overrides, "sweep=once"], one_trial=False)
        ]
    trials = {subject(trial): trial for trial in map(Trial.from_config, configs)}
    only = question["only"]
    chosen = {name: trial for name, trial in trials.items() if only is None or name in only}
    device = resolve_device(next(iter(chosen.values())).hardware)
    yield {"environment": environment(device), "composed": list(trials), "optbench": optbench.__file__}
    if question["kind"] == "time":
        first = next(iter(chosen.values())).hardware
        # What that sets for the process is the same for all; and what is compiled is to stay so from block to block.
        with configured(replace(first, compile_step=False, compile_model=False), device):
            yield from _times(chosen, device, told=told)
        return
    for name, trial in chosen.items():
        torch.compiler.reset()  # what was compiled for one, or was not, is nothing to the next
        with configured(trial.hardware, device):
            yield _tried(name, lambda trial=trial: {"exact": exact(trial, device)})  # type: ignore[misc]
    for name, trial in chosen.items():  # last, since it changes torch
        yield _tried(name, lambda trial=trial: {"exact": {"peak_bytes": predict(trial).peak_bytes}})  # type: ignore[misc]


def _times(trials: Mapping[str, Trial], device: torch.device, *, told: TextIO) -> Iterator[Mapping[str, Any]]:
    """Times blocks as they are asked for, one line each, until there is no more: then what they came to."""
    kernel = Kernel(device)
    timers: dict[str, Timer] = {}
    for name, trial in trials.items():
        answer = _tried(name, lambda name=name, trial=trial: timers.update({name: Timer(trial, device, kernel=kernel)}))  # type: ignore[misc]
        if "failure" in answer:
            yield answer
    yield {"ready": list(timers)}
    gc.collect()
    gc.freeze()
    gc.disable()
    for line in told:
        asked = json.loads(line)
        name, timer = asked["subject"], timers.get(asked["subject"])
        if timer is not None:
            answer = _tried(name, lambda timer=timer, asked=asked: timer.block(asked["seconds"]))  # type: ignore[misc]
            if "failure" in answer:
                del timers[name]
                yield answer
        yield {"done": name}
    for name, timer in timers.items():
        yield {"subject": name, "sample": timer.sample()}


def _tried(name: str, work: Callable[[], Mapping[str, Any] | None]) -> Mapping[str, Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return {"subject": name, **(work() or {})}
        except NotPredictable:  # that is so on every side
            return {"subject": name}
        except (Exception, SystemExit) as error:  # it costs this subject alone
            reason = str(error).partition("\n")[0]
            return {"subject": name, "failure": f"{type(error).__name__}: {reason}"}


def _end_with_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(SECONDS_BETWEEN_LOOKS)
    os._exit(1)


def main() -> None:
    """Answer one question."""
    threading.Thread(target=_end_with_parent, args=[os.getppid()], daemon=True).start()
    question = json.loads(sys.stdin.readline())
    with os.fdopen(int(sys.argv[1]), "w") as answers:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what libraries print is no answer
        try:
            for answer in _answers(question, sys.stdin):
                answers.write(json.dumps(answer, allow_nan=False) + "\n")
                answers.flush()
        except UsageError as error:
            answers.write(json.dumps({"mistake": str(error)}) + "\n")


if __name__ == "__main__":
    main()
