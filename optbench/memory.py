"""Memory in bytes: exact for the optimizer's state, and the peak of a training step and what it is made of.

On the CPU the peak is that of tensor bytes, see `optbench.tracker`; the allocator's own events are a cross-check that
sees workspace inside kernels too. On a GPU it is the allocator's own peak, and the log of tensors tells its parts.
"""

import gc
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from optbench import building, components
from optbench.allocator import Allocator
from optbench.component import Capability
from optbench.cost import Memory, Phase
from optbench.optim import build as optim_build
from optbench.stepper import Stepper, take_until_unskipped
from optbench.task import Task
from optbench.tracker import Role, Tracker, tensors_in
from optbench.trial import Trial

# Steps until the state is there and an allocator has found its blocks.
NUM_FIRST_STEPS = 2
# That are seen; a period that is longer is gone through unseen until a little before its refresh.
MAX_STEPS = 50
MAX_UNSEEN_STEPS = 500
# How many more steps are taken than a state is declared to grow for: some of them may add nothing.
_SETTLING = 1.2
_MARK = "optbench: a period"


def state_bytes(optimizer: torch.optim.Optimizer) -> int:
    """Bytes of all tensors in the optimizer's state; storage that is shared counts once."""
    return sum(state_bytes_by_dtype(optimizer).values())


def state_bytes_by_dtype(optimizer: torch.optim.Optimizer) -> dict[str, int]:
    """The same by the name of the dtype, such as `float32`."""
    storages = {
        tensor.untyped_storage()._cdata: (str(tensor.dtype).removeprefix("torch."), tensor.untyped_storage().nbytes())
        for state in optimizer.state.values()
        for tensor in tensors_in(state)
    }
    found: Counter[str] = Counter()
    for dtype, num_bytes in storages.values():
        found[dtype] += num_bytes
    return dict(sorted(found.items()))


def low_bit_share(optimizer: torch.optim.Optimizer) -> float:
    """The share of trained parameters whose state is held in 8 bits or fewer, at least in part.

    Low-bit optimizers leave small tensors alone, so that one of them may in truth be a 32-bit one.
    """
    sizes = [parameter.numel() for group in optimizer.param_groups for parameter in group["params"]]
    low = sum(
        parameter.numel()
        for parameter, state in optimizer.state.items()
        if any(_is_low_bit(tensor) and 4 * tensor.numel() >= parameter.numel() for tensor in tensors_in(state))
    )
    return float(low / sum(sizes))


def _is_low_bit(tensor: torch.Tensor) -> bool:
    return tensor.element_size() == 1 and tensor.dtype != torch.bool


def measure(trial: Trial, device: torch.device) -> Memory:
    """What a training step of the trial takes, in steps that are taken.

    Whatever is raised on the way, such as `torch.OutOfMemoryError`, is passed on.

    Args:
        trial: what is trained, and how.
        device: where; its settings are made already, see `optbench.device.configured`.
    """
    prepare(trial, device)
    if device.type == "cuda":
        return _measured_on_gpu(trial, device)
    with eager(), no_garbage():
        training = Training(trial, device)
        found = training.memory()
        return replace(found, kernel_peak_bytes=training.kernel_peak_bytes())


def prepare(trial: Trial, device: torch.device) -> None:
    """Have there what is no part of a step: the data, the libraries and the tables that these make for themselves."""
    if trial.data is not None:
        building.load_data(trial.data, device)
    for group, part in (("task", trial.task), ("optimizer", trial.optimizer), ("optimizer", trial.optimizer.companion)):
        if part is not None:
            components.locate(part, group=group)
    with eager(), suppress(Exception):  # what is wrong shows again in the step itself
        model = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 64), nn.Linear(64, 2))
        optimizer = optim_build.build(building.optimizer_component(trial), model)
        step = Stepper(
            lambda inputs: model(inputs).square().mean(),
            optimizer,
            capabilities=trial.optimizer.capabilities,
            max_grad_norm=None,
        )
        _start(optimizer, trial)
        step(torch.ones(2, 64))


def _start(optimizer: torch.optim.Optimizer, trial: Trial) -> None:
    """Have it take steps, where it has two sets of weights."""
    if Capability.TRAIN_EVAL in trial.optimizer.capabilities:
        optimizer.train()  # type: ignore[attr-defined]


def _measured_on_gpu(trial: Trial, device: torch.device) -> Memory:
    allocator = Allocator(device)
    with no_garbage():
        training = Training(trial, device, mark=allocator.mark)
        training.approach()
        training.take(NUM_FIRST_STEPS)
        allocator.start()
        training.take(training.num_steps)
        allocator.stop()
        with eager():
            found = training.memory()
            return allocator.corrected(found, parts=training.phase_parts, alive_bytes=training.alive_bytes)


@contextmanager
def eager() -> Iterator[None]:
    """Without compiled code, which is not seen tensor by tensor; some optimizers compile parts of themselves."""
    with torch.compiler.set_stance("force_eager"):
        yield


class Training:
    """A trial's training as far as its memory goes.

    Args:
        trial: what is trained, and how.
        device: where.
        batches: gives the minibatches of a task.
        mark: told of each phase when it begins.

    Attributes:
        num_steps: that are seen: a whole period of the optimizer, or that part of it that holds its refresh.
        phase_parts: what is alive at the peak of each phase, once `memory` was called.
    """

    def __init__(
        self,
        trial: Trial,
        device: torch.device,
        *,
        batches: Callable[[Task], Iterator[Any]] = lambda task: task.batches(),
        mark: Callable[[Phase], None] = lambda _: None,
    ) -> None:
        self.num_steps = min(trial.optimizer.period, MAX_STEPS)
        self.phase_parts: Mapping[Phase, Mapping[str, int]] = {}
        self._tracker = Tracker(device)
        with self._tracker:
            task, self._optimizer = building.build(trial, device)
        _start(self._optimizer, trial)
        self._model = task.model
        self._batches = batches(task)
        self._marks = [self._tracker.mark, mark]
        self._phase = Phase.DATA
        self._period = trial.optimizer.period
        self._settles = math.ceil(_SETTLING * trial.optimizer.settles)
        self._num_taken = 0
        self._is_unskipped = False
        self._gradient_bytes = 0
        self._batch_bytes = 0
        self._step = Stepper(
            task.loss,
            self._optimizer,
            capabilities=trial.optimizer.capabilities,
            max_grad_norm=trial.max_grad_norm,
            hardware=trial.hardware,
            mark=self._mark,
        )

    def take(self, num_steps: int) -> None:
        """Take steps that nothing is known of."""
        for _ in range(num_steps):
            self._take()
        self._num_taken += num_steps

    @property
    def alive_bytes(self) -> int:
        """Of all tensors in sight, at this moment."""
        return self._tracker.alive_bytes

    def approach(self) -> None:
        """Take steps, of which nothing is known, until the next ones stand for all later ones.

        None of them is skipped then, the state has grown as far as it is declared to, and the optimizer's refresh is
        about to come: most have it where their count of steps is a multiple of the period.

        Raises:
            RuntimeError: steps are skipped again and again, see `optbench.stepper.take_until_unskipped`.
        """
        if not self._is_unskipped:
            self._num_taken += take_until_unskipped(self._step, self._take)
            self._is_unskipped = True
        start = max(self._num_taken, self._settles)
        if self._period > MAX_STEPS:
            before = MAX_STEPS // 2
            start = self._period * math.ceil((start + before) / self._period) - before
        self.take(min(start - self._num_taken, MAX_UNSEEN_STEPS))

    def memory(self) -> Memory:
        """Take a period's steps with every tensor in sight."""
        for _ in range(NUM_FIRST_STEPS):
            self._take_seen()  # from the very first, so that all that is made once is in sight, too
        num_taken = self._num_taken
        self.approach()
        for _ in range(NUM_FIRST_STEPS if self._num_taken > num_taken else 0):
            self._take_seen()
        state_bytes_before = state_bytes(self._optimizer)
        trained = [parameter for parameter in self._model.parameters() if parameter.requires_grad]
        frozen = [parameter for parameter in self._model.parameters() if not parameter.requires_grad]
        self._tracker.add(trained, Role.PARAMETERS)
        self._tracker.add([*frozen, *self._model.buffers()], Role.FROZEN)
        gc.collect()
        self._tracker.start()
        for _ in range(self.num_steps):
            self._take_seen()
            gc.collect()
        peaks = self._tracker.peaks()
        peak_phase = max(peaks.phase_bytes, key=peaks.phase_bytes.__getitem__)
        self.phase_parts = peaks.phase_parts
        state = state_bytes_by_dtype(self._optimizer)
        return Memory(
            kind="measured",
            counted="tensors",
            num_parameters=sum(parameter.numel() for parameter in trained),
            parameter_bytes=_num_bytes(trained),
            frozen_bytes=_num_bytes([*frozen, *self._model.buffers()]),
            gradient_bytes=self._gradient_bytes,
            state_bytes=sum(state.values()),
            state_bytes_by_dtype=state,
            batch_bytes=self._batch_bytes,
            activation_bytes=peaks.activation_bytes,
            transient_bytes=peaks.transient_bytes,
            peak_bytes=peaks.phase_bytes[peak_phase],
            peak_phase=peak_phase,
            phase_peak_bytes={phase.value: most for phase, most in peaks.phase_bytes.items()},
            peak_parts=peaks.phase_parts[peak_phase],
            num_steps=self.num_steps,
            is_settled=sum(state.values()) <= state_bytes_before and self._period <= MAX_UNSEEN_STEPS,
        )

    def kernel_peak_bytes(self) -> int | None:
        """The peak of a period by the events of the CPU's allocator; None where the profiler fails."""
        activities = [torch.profiler.ProfilerActivity.CPU]
        try:
            self.approach()
            with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
                self._take_seen()  # what was there before the profiler, and ends here, has no event
                alive = most = self._tracker.alive_bytes
                with torch.profiler.record_function(_MARK):
                    self.take(self.num_steps)
            events = profile.profiler.kineto_results.events()
            start = next(event.start_ns() for event in events if event.name() == _MARK)
            changes = [(event.start_ns(), event.nbytes()) for event in events if event.name() == "[memory]"]
        except Exception:  # it is a cross-check: what is wrong with it costs nothing else
            return None
        for when, change in sorted(changes):
            if when >= start:
                alive += change
                most = max(most, alive)
        return most

    def _take(self) -> None:
        self._mark(Phase.DATA)
        self._step(next(self._batches))

    def _take_seen(self) -> None:
        self._num_taken += 1
        self._tracker.mark(Phase.DATA)
        batch = next(self._batches)
        self._batch_bytes = max(self._batch_bytes, self._tracker.add_batch(batch))
        with self._tracker:
            self._step(batch)
        self._tracker.add(
            (tensor for state in self._optimizer.state.values() for tensor in tensors_in(state)), Role.STATE
        )

    def _mark(self, phase: Phase) -> None:
        if self._phase is Phase.BACKWARD and phase is Phase.OPTIMIZER:
            gradients = [parameter.grad for parameter in self._model.parameters() if parameter.grad is not None]
            self._tracker.add(gradients, Role.GRADIENTS)
            self._gradient_bytes = max(self._gradient_bytes, _num_bytes(gradients))
        self._phase = phase
        for mark in self._marks:
            mark(phase)


@contextmanager
def no_garbage() -> Iterator[None]:
    """Without a garbage collector that frees cycles at some moment or other: between two steps they are collected."""
    was_enabled = gc.isenabled()
    gc.disable()
    gc.freeze()  # what is here stays, and need not be gone through each time
    try:
        yield
    finally:
        gc.unfreeze()
        if was_enabled:
            gc.enable()


def _num_bytes(tensors: Iterable[torch.Tensor]) -> int:
    """Bytes of these; storage that is shared counts once."""
    storages = {part.untyped_storage()._cdata: part.untyped_storage().nbytes() for part in tensors_in(list(tensors))}
    return sum(storages.values())
