"""What a training step costs, in memory and time: the words in which it is stored and shown."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal


class Phase(StrEnum):
    """The parts of a training step, in their order."""

    DATA = "data"
    """The minibatch is made."""
    FORWARD = "forward"
    """The loss."""
    BACKWARD = "backward"
    """The gradients."""
    OPTIMIZER = "optimizer"
    """All between the gradients and the next step: zeroing, clipping and the update."""


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes that a training step takes, the data set excluded.

    Attributes:
        kind: whether the step was taken, or gone through without data and without a device.
        counted: what the peaks are of: `tensors` sees every tensor and no workspace inside a kernel, `allocated` is
            what the allocator of a GPU gave away.
        num_parameters: trained ones.
        parameter_bytes: of the trained parameters.
        frozen_bytes: of frozen parameters and of buffers.
        gradient_bytes: after the backward pass.
        state_bytes: of the optimizer's state, each storage once.
        state_bytes_by_dtype: the same by the name of the dtype, such as `float32`.
        batch_bytes: of the minibatch.
        activation_bytes: the most that is alive in forward and backward besides the bytes above.
        transient_bytes: the most that `step()` takes besides what was alive before it.
        peak_bytes: the most that is alive at a time.
        peak_phase: when that is.
        phase_peak_bytes: the most that is alive at a time in each phase.
        peak_parts: what is alive at the peak: parameters, frozen, gradients, state, batch, and as `activations` or
            `transient` all else; on a GPU also `workspace`, which libraries keep and no tensor is. They add
            up to it.
        num_steps: steps gone through, of which these are the largest figures; a whole period of the optimizer.
        kernel_peak_bytes: the peak by the allocator's own events, on the CPU; what is above `peak_bytes` was taken
            inside kernels. None where that is not known.
        reserved_bytes: the most that the allocator of a GPU held; None elsewhere.
        device_bytes: by how much the step and what it needs made the GPU fuller, as the device tells; None elsewhere.
        is_settled: whether later steps take no more; False where the state still grew at the end, or where the
            optimizer's period is too long to be gone through.
    """

    kind: Literal["measured", "predicted"]
    counted: Literal["tensors", "allocated"]
    num_parameters: int
    parameter_bytes: int
    frozen_bytes: int
    gradient_bytes: int
    state_bytes: int
    state_bytes_by_dtype: Mapping[str, int]
    batch_bytes: int
    activation_bytes: int
    transient_bytes: int
    peak_bytes: int
    peak_phase: Phase
    phase_peak_bytes: Mapping[str, int]
    peak_parts: Mapping[str, int]
    num_steps: int
    kernel_peak_bytes: int | None = None
    reserved_bytes: int | None = None
    device_bytes: int | None = None
    is_settled: bool = True

    @property
    def times_parameters(self) -> float:
        """Parameters and state over parameters: 3.0 for AdamW."""
        return (self.parameter_bytes + self.state_bytes) / self.parameter_bytes

    @property
    def times_parameters_with_gradients(self) -> float:
        """Parameters, state and gradients over parameters: 4.0 for AdamW."""
        return (self.parameter_bytes + self.state_bytes + self.gradient_bytes) / self.parameter_bytes


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Of repeated measurements.

    Attributes:
        median: half are below.
        p10: a tenth is below.
        p90: a tenth is above.
        n: how many there are.
    """

    median: float
    p10: float
    p90: float
    n: int


@dataclass(frozen=True, kw_only=True)
class Time:
    """Seconds that a training step takes once it is warm.

    A measurement is the mean over a block of steps, closed by one synchronise; blocks of the reference alternate with
    them.

    Attributes:
        step: of a whole step.
        phases: of each phase.
        steps_per_block: whole periods of the optimizer.
        period: steps between two refreshes of an optimizer that refreshes now and then; 1 for others.
        num_warmup_steps: before the first block.
        is_steady: whether the last two blocks of the warm-up agreed, and those of the reference's.
        first_step_seconds: of the very first step, in which state is made and code compiled.
        compile_seconds: by how much the steps before the first block took longer than as many later ones, where
            anything is compiled; None elsewhere. A second step may compile again.
        reference: what is compared with.
        reference_step: of a whole step of the reference; None, as are the next three, where the memory does not hold
            both.
        reference_phases: of each of its phases.
        ratio: of a step to one of the reference, block by block.
        optimizer_ratio: the same of the optimizer's phase alone.
        joules_per_step: energy by the counter of the GPU; None elsewhere.
    """

    step: Spread
    phases: Mapping[str, Spread]
    steps_per_block: int
    period: int
    num_warmup_steps: int
    is_steady: bool
    first_step_seconds: float
    compile_seconds: float | None
    reference: str
    reference_step: Spread | None
    reference_phases: Mapping[str, Spread] | None
    ratio: Spread | None
    optimizer_ratio: Spread | None
    joules_per_step: float | None = None

    @property
    def optimizer_share(self) -> float:
        """The optimizer's part of a step, in [0, 1]."""
        return self.phases[Phase.OPTIMIZER].median / self.step.median


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a training step of one task, optimizer and hardware costs.

    Attributes:
        id: of what was asked, see `optbench.costing.cost_id`.
        config: what was asked, in YAML's terms.
        memory: as measured; None where it could not be.
        predicted: as predicted; None where it could not be.
        time: as measured; None where it could not be.
        contended: what else kept the device busy, a sentence each; empty where it was idle, None where nobody can tell.
        failures: why figures are missing, by what is: `memory`, `predicted` or `time`.
        environment: versions, commit and machine.
    """

    id: str
    config: Mapping[str, Any]
    memory: Memory | None
    predicted: Memory | None
    time: Time | None
    contended: Sequence[str] | None
    failures: Mapping[str, str]
    environment: Mapping[str, Any]
