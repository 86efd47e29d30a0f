"""One optimizer step, the same for every task, optimizer and hardware config."""

from collections.abc import Callable, Mapping, Sequence, Set
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

from optbench.component import Capability
from optbench.cost import Phase
from optbench.errors import UsageError
from optbench.hardware import Hardware

# Half precision begins with a scale of 2^16 and halves it at each step that it skips, down to 2^-24 or so.
MAX_SKIPPED = 40
NUM_UNSKIPPED = 2


class Stepper:
    """One optimizer step on a minibatch, in the way that the optimizer and the hardware config need it.

    Args:
        loss: of a minibatch, with a graph behind it.
        optimizer: takes the step.
        capabilities: of the optimizer.
        max_grad_norm: clips the gradient; None does not.
        hardware: how the step is computed; None is in the plain way.
        mark: told of each phase when it begins.

    Attributes:
        num_gradient_evaluations: backward passes over a minibatch so far.
        grad_norm: of the first gradient of the last step, before it was clipped, if that step was watched.

    Raises:
        UsageError: the optimizer cannot go with the hardware config.
    """

    def __init__(
        self,
        loss: Callable[[Any], Tensor],
        optimizer: torch.optim.Optimizer,
        *,
        capabilities: Set[Capability],
        max_grad_norm: float | None,
        hardware: Hardware | None = None,
        mark: Callable[[Phase], None] = lambda _: None,
    ) -> None:
        self.num_gradient_evaluations = 0
        self.grad_norm: Tensor | None = None
        self._is_watched = False
        self._loss = loss
        self._optimizer = optimizer
        self._max_grad_norm = max_grad_norm
        self._mark = mark
        self._parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        self._create_graph = Capability.CREATE_GRAPH in capabilities
        self._closure_alone = Capability.CLOSURE in capabilities
        self._extra_pass = Capability.EXTRA_PASS in capabilities
        self._num_parts = 1 if hardware is None else hardware.num_micro_batches
        self._scaler = None
        if hardware is not None and hardware.precision == "fp16":
            self._scaler = torch.amp.GradScaler(self._parameters[0].device.type)
        self._step: Callable[..., Any] = optimizer.step
        if hardware is not None:
            check_step(capabilities, hardware)
            if hardware.compile_step:
                rates_as_tensors(optimizer)
                self._step = torch.compile(optimizer.step)

    def __call__(self, batch: Any, *, watched: bool = False) -> Tensor:
        """Take the step; the loss before it, on the device and without a graph."""
        self._is_watched, self.grad_norm = watched, None
        if self._closure_alone:
            losses: list[Tensor] = []

            def closure() -> Tensor:
                losses.append(self._backward(batch))
                return losses[-1]

            self._step(closure)
            return losses[0]
        loss = self._backward(batch)
        if self._scaler is not None:  # skips the step where a gradient is not finite, and scales less from then on
            self._scaler.step(self._optimizer)
            self._scaler.update()
        elif self._extra_pass:
            self._step(lambda: self._backward(batch))
        else:
            self._step()
        if self._create_graph:
            self._optimizer.zero_grad()  # gradients with a graph keep themselves alive
        return loss

    @property
    def scale(self) -> float | None:
        """Factor of the loss, lower after a step that was skipped; None where there is none. It waits for the GPU."""
        return None if self._scaler is None else float(self._scaler.get_scale())

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {
            "gradient_evaluations": self.num_gradient_evaluations,
            "scaler": None if self._scaler is None else self._scaler.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.num_gradient_evaluations = state["gradient_evaluations"]
        if self._scaler is not None and state["scaler"] is not None:
            self._scaler.load_state_dict(state["scaler"])

    def _backward(self, batch: Any) -> Tensor:
        self.num_gradient_evaluations += 1
        self._mark(Phase.OPTIMIZER)
        self._optimizer.zero_grad()
        if self._num_parts == 1:
            loss = self._add_gradients(batch)
        else:
            loss = torch.stack(
                [self._add_gradients(part, share=share) for part, share in parts(batch, self._num_parts)]
            ).sum()
        self._mark(Phase.OPTIMIZER)
        if self._scaler is not None:
            self._scaler.unscale_(self._optimizer)
        norm = None
        if self._max_grad_norm is not None:
            norm = torch.nn.utils.clip_grad_norm_(self._parameters, self._max_grad_norm)
        if self._is_watched and self.grad_norm is None:
            self.grad_norm = _norm(self._parameters) if norm is None else norm
        return loss

    def _add_gradients(self, batch: Any, *, share: float | None = None) -> Tensor:
        """Add the gradients of the loss, or of a share of it, to those that are there; returns it, without a graph."""
        self._mark(Phase.FORWARD)
        loss = self._loss(batch)
        if share is not None:
            loss = loss * share
        self._mark(Phase.BACKWARD)
        if self._create_graph:  # not `backward(create_graph=True)`, which warns of the cycle that `__call__` breaks
            gradients = torch.autograd.grad(loss, self._parameters, create_graph=True, allow_unused=True)
            for parameter, gradient in zip(self._parameters, gradients, strict=True):
                parameter.grad = gradient
        else:
            scaled = loss if self._scaler is None else self._scaler.scale(loss)
            scaled.backward()  # type: ignore[no-untyped-call, unused-ignore]
        return loss.detach()


def _norm(parameters: Sequence[Tensor]) -> Tensor:
    with torch.no_grad():
        return torch.nn.utils.get_total_norm([parameter.grad for parameter in parameters if parameter.grad is not None])


def take_until_unskipped(step_on: Stepper, take: Callable[[], object]) -> int:
    """Take steps until the scale of half precision is such that steps are no longer skipped; none where there is none.

    Args:
        step_on: takes the steps.
        take: has it take one.

    Returns:
        How many steps were taken and not skipped.

    Raises:
        RuntimeError: they still are after `MAX_SKIPPED` steps.
    """
    num_in_succession = num_taken = 0
    if (scale := step_on.scale) is None:
        return 0
    for _ in range(MAX_SKIPPED):
        take()
        before, scale = scale, step_on.scale
        assert scale is not None
        is_taken = scale >= before
        num_taken += is_taken
        num_in_succession = num_in_succession + 1 if is_taken else 0
        if num_in_succession == NUM_UNSKIPPED:
            return num_taken
    raise RuntimeError(
        f"hardware.precision=fp16: within {MAX_SKIPPED} steps there are no {NUM_UNSKIPPED} in succession whose "
        "gradients are finite, so that no step is taken."
    )


def check_step(capabilities: Set[Capability], hardware: Hardware) -> None:
    """Check that an optimizer's step can be computed as the hardware config asks.

    Raises:
        UsageError: it cannot.
    """
    several = sorted(capabilities & {Capability.CLOSURE, Capability.EXTRA_PASS, Capability.CREATE_GRAPH})
    if hardware.compile_step and hardware.precision == "fp16":
        raise UsageError(
            "hardware.compile_step=true does not go with hardware.precision=fp16, which skips a step "
            "where a gradient is not finite.\nUse precision=bf16, or leave compile_step out."
        )
    if hardware.compile_step and hardware.implementation == "foreach":
        raise UsageError(
            "hardware.compile_step=true does not go with hardware.implementation=foreach: a compiled step has its rate "
            "in a tensor, which torch's foreach does not take.\nLeave one of them out: what is compiled is joined too."
        )
    if hardware.compile_step and hardware.implementation == "fused":
        raise UsageError(
            "hardware.compile_step=true does not go with hardware.implementation=fused: a fused step is one kernel "
            "already, and nothing of it is compiled.\nLeave one of them out."
        )
    for key, is_asked in (
        ("precision=fp16", hardware.precision == "fp16"),
        ("compile_step=true", hardware.compile_step),
        ("num_micro_batches", hardware.num_micro_batches > 1 and Capability.CREATE_GRAPH in several),
    ):
        if is_asked and several:
            raise UsageError(
                f"hardware.{key}: the optimizer needs {', '.join(several)}, which does not go with it.\n"
                "Leave it out, or choose another optimizer."
            )


def rates_as_tensors(optimizer: torch.optim.Optimizer) -> None:
    """Make each rate a tensor, of 64 bits, so that it is the same number.

    A number would be part of the code: another one has it compiled anew, or, by torch 2.13 for processors, goes on with
    a wrong one.
    """
    for group in optimizer.param_groups:
        if isinstance(group["lr"], float):
            group["lr"] = torch.tensor(group["lr"], dtype=torch.float64)


def parts(batch: Any, num_parts: int) -> list[tuple[Any, float]]:
    """The parts of a minibatch along the first dimension of its tensors, each with its share of the examples.

    Raises:
        UsageError: these are not examples along a first dimension, or fewer of them than parts.
    """
    leaves, structure = tree_flatten(batch)
    sizes = {leaf.shape[0] if leaf.ndim else 0 for leaf in leaves if isinstance(leaf, Tensor)}
    size = sizes.pop() if len(sizes) == 1 else 0
    if size < num_parts:
        raise UsageError(
            f"hardware.num_micro_batches={num_parts}: the task's minibatches cannot be split so"
            + (f", they have {size} examples." if size else ", since their tensors have no first dimension in common.")
        )
    found = []
    for part in range(num_parts):
        start, end = size * part // num_parts, size * (part + 1) // num_parts
        own = [leaf[start:end] if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        found.append((tree_unflatten(own, structure), (end - start) / size))
    return found
