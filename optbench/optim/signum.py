"""Signum: the sign of an averaged gradient; signSGD where its momentum is 0.

Paper: Bernstein, Wang, Azizzadenesheli and Anandkumar, "signSGD: compressed optimisation for non-convex problems"
(2018), https://arxiv.org/abs/1802.04434, algorithms 1 (signSGD) and 2 (Signum):

    m <- momentum * m + (1 - momentum) * g
    theta <- theta - lr * (sign(m) + weight_decay * theta)

What differs: one process, so no majority vote. `nesterov` is an addition, the sign of
(1 - momentum) * g + momentum * m, as in https://github.com/epfml/llm-optimizer-benchmark, whose accumulating momentum
has the same sign (but starts there from a copy of the parameters, and here from 0).
"""

from collections.abc import Callable
from typing import final

import torch
from torch.optim.optimizer import ParamsT


@final
class Signum(torch.optim.Optimizer):
    """Steps of the same size lr in every parameter, in the direction that the averaged gradient has.

    Args:
        params: parameters, or groups of them.
        lr: learning rate, the size of each step.
        momentum: what the average of the gradient keeps at each step; 0 is signSGD, which keeps nothing.
        weight_decay: times lr, the part of a parameter that a step takes away.
        nesterov: look one gradient ahead before taking the sign.

    Raises:
        ValueError: a value is out of range, or `nesterov` has no momentum.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 0.001,
        *,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        nesterov: bool = False,
    ) -> None:
        if not lr >= 0.0:
            raise ValueError(f"lr={lr}: it must be at least 0")
        if not 0.0 <= momentum < 1.0:
            raise ValueError(f"momentum={momentum}: it must be at least 0 and below 1")
        if not weight_decay >= 0.0:
            raise ValueError(f"weight_decay={weight_decay}: it must be at least 0")
        if nesterov and not momentum:
            raise ValueError("nesterov needs momentum above 0")
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "nesterov": nesterov})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override, unused-ignore]
        """Update the parameters from their gradients.

        Args:
            closure: computes the loss and the gradients anew; they are taken as they are without it.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            momentum = group["momentum"]
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                parameter.mul_(1.0 - group["lr"] * group["weight_decay"])
                direction = parameter.grad
                if momentum:
                    state = self.state[parameter]
                    if not state:
                        state["exp_avg"] = torch.zeros_like(parameter)
                    average = state["exp_avg"].lerp_(parameter.grad, 1.0 - momentum)
                    direction = parameter.grad.lerp(average, momentum) if group["nesterov"] else average
                parameter.add_(direction.sign(), alpha=-group["lr"])
        return loss
