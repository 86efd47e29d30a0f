"""SAM: the gradient is taken uphill, where the loss nearby is worst; twice the work in each step.

Paper: Foret, Kleiner, Mobahi and Neyshabur, "Sharpness-aware minimization for efficiently improving generalization"
(2021), https://arxiv.org/abs/2010.01412, algorithm 1 with p = 2:

    e <- rho * g / ||g||                 with g = grad f(theta), the norm over all parameters
    theta <- base step from theta along grad f(theta + e)

What differs: the base step is that of torch.optim.SGD with momentum, inside this class. The gradients of the first pass
are those that the parameters hold when `step(closure)` is called; the closure clears them, and computes the loss and
the gradients again on the same minibatch. Weight decay is added to the second gradient alone. Layers that keep
statistics, such as batch norm, see both passes.
"""

from collections.abc import Callable
from typing import final

import torch
from torch.optim.optimizer import ParamsT


@final
class SAM(torch.optim.Optimizer):
    """SGD with momentum along the gradient at the point that `rho` uphill reaches.

    Args:
        params: parameters, or groups of them.
        lr: learning rate of the base step.
        rho: how far uphill the second gradient is taken; 0 is SGD.
        momentum: the part of the momentum that each base step keeps.
        weight_decay: factor of the parameters that is added to the second gradient.
        nesterov: step along the gradient plus `momentum` times the momentum.

    Raises:
        ValueError: a value is out of range, or `nesterov` has no momentum.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 0.001,
        *,
        rho: float = 0.05,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        nesterov: bool = False,
    ) -> None:
        if not lr >= 0.0:
            raise ValueError(f"lr={lr}: it must be at least 0")
        if not rho >= 0.0:
            raise ValueError(f"rho={rho}: it must be at least 0")
        if not 0.0 <= momentum < 1.0:
            raise ValueError(f"momentum={momentum}: it must be at least 0 and below 1")
        if not weight_decay >= 0.0:
            raise ValueError(f"weight_decay={weight_decay}: it must be at least 0")
        if nesterov and not momentum:
            raise ValueError("nesterov needs momentum above 0")
        super().__init__(
            params,
            {"lr": lr, "rho": rho, "momentum": momentum, "weight_decay": weight_decay, "nesterov": nesterov},
        )

    @torch.no_grad()
    def step(self, closure: Callable[[], float]) -> float:  # type: ignore[override]
        """Climb along the gradients that are there, take those of the closure, go back, and do the base step.

        Args:
            closure: clears the gradients, computes the loss on the same minibatch and the gradients, returns the loss.
        """
        starts = self._climb()
        try:
            with torch.enable_grad():
                loss = closure()
        finally:  # exactly where they were, whatever the closure does
            for parameter, start in starts:
                parameter.copy_(start)
        self._base_step()
        return loss

    def _climb(self) -> list[tuple[torch.Tensor, torch.Tensor]]:
        climbing = [
            (parameter, group["rho"])
            for group in self.param_groups
            for parameter in group["params"]
            if parameter.grad is not None
        ]
        if not climbing:
            return []
        squares = [parameter.grad.square().sum(dtype=_at_least_float32(parameter)) for parameter, _ in climbing]
        norm = torch.stack([square.to(squares[0].device) for square in squares]).sum().sqrt() + 1e-12
        starts = []
        for parameter, rho in climbing:
            starts.append((parameter, parameter.clone()))
            parameter.add_(parameter.grad * (rho / norm).to(parameter))
        return starts

    def _base_step(self) -> None:
        for group in self.param_groups:
            momentum = group["momentum"]
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                grad = parameter.grad
                if group["weight_decay"]:
                    grad = grad.add(parameter, alpha=group["weight_decay"])
                direction = grad
                if momentum:
                    state = self.state[parameter]
                    if state:
                        state["momentum_buffer"].mul_(momentum).add_(grad)
                    else:
                        state["momentum_buffer"] = grad.clone()
                    buffer = state["momentum_buffer"]
                    direction = grad.add(buffer, alpha=momentum) if group["nesterov"] else buffer
                parameter.add_(direction, alpha=-group["lr"])


def _at_least_float32(tensor: torch.Tensor) -> torch.dtype:
    return torch.promote_types(tensor.dtype, torch.float32)
