"""Adam and SGD whose weight decay follows the schedule of lr, and not its size.

Paper: Loshchilov and Hutter, "Decoupled weight decay regularization" (2019), https://arxiv.org/abs/1711.05101,
algorithms 1 and 2. The same as DecoupledSGDW and DecoupledAdamW of MosaicML's Composer, amsgrad aside:
https://github.com/mosaicml/composer

    theta <- theta * (1 - lr / initial_lr * weight_decay)

and then the step of SGD or of Adam. lr / initial_lr is the schedule's factor, the paper's eta: `initial_lr` is what a
group gives under that key, or its lr at construction. The decay at the peak is therefore the same for every peak rate.

What differs: torch.optim.AdamW multiplies the decay by lr, so that weight_decay / lr there is weight_decay here. The
paper's SGDW keeps lr inside the momentum and this one outside, as PyTorch does: equal under a constant rate. Where
initial_lr is 0 the factor counts as 1. In bfloat16 a decay below 0.002 rounds to none.
"""

import math
from collections.abc import Callable
from typing import Any, final

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT


@final
class DecoupledAdamW(torch.optim.Optimizer):
    """Adam with weight decay that does not depend on the size of lr.

    Args:
        params: parameters, or groups of them.
        lr: learning rate, the peak of its schedule.
        betas: what the averages of the gradient and of its square keep at each step.
        eps: is added to the root of the corrected average.
        weight_decay: the part of a parameter that a step takes away at the peak rate.

    Raises:
        ValueError: a value is out of range.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 0.001,
        *,
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-8,
        weight_decay: float = 0.00001,
    ) -> None:
        if not lr >= 0.0:
            raise ValueError(f"lr={lr}: it must be at least 0")
        if len(betas) != 2 or not all(0.0 <= beta < 1.0 for beta in betas):
            raise ValueError(f"betas={betas}: two numbers, each at least 0 and below 1")
        if not eps >= 0.0:
            raise ValueError(f"eps={eps}: it must be at least 0")
        if not 0.0 <= weight_decay <= 1.0:
            raise ValueError(f"weight_decay={weight_decay}: the part that a step takes away, from 0 to 1")
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group, whose decay is relative to the lr that it comes with."""
        super().add_param_group(param_group)
        self.param_groups[-1].setdefault("initial_lr", self.param_groups[-1]["lr"])

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
            beta1, beta2 = group["betas"]
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                _decay(parameter, group)
                state = self.state[parameter]
                if not state:
                    state["step"] = 0
                    state["exp_avg"] = torch.zeros_like(parameter)
                    state["exp_avg_sq"] = torch.zeros_like(parameter)
                state["step"] += 1
                state["exp_avg"].lerp_(parameter.grad, 1.0 - beta1)
                state["exp_avg_sq"].mul_(beta2).addcmul_(parameter.grad, parameter.grad, value=1.0 - beta2)
                root = state["exp_avg_sq"].sqrt().div_(math.sqrt(1.0 - beta2 ** state["step"]))
                size = group["lr"] / (1.0 - beta1 ** state["step"])
                parameter.addcdiv_(state["exp_avg"], root.add_(group["eps"]), value=-size)
        return loss


@final
class DecoupledSGDW(torch.optim.Optimizer):
    """SGD with momentum, as torch.optim.SGD, and weight decay that does not depend on the size of lr.

    Args:
        params: parameters, or groups of them.
        lr: learning rate, the peak of its schedule.
        momentum: the part of the momentum that each step keeps.
        dampening: the part of the gradient that does not enter the momentum, after the first step.
        weight_decay: the part of a parameter that a step takes away at the peak rate.
        nesterov: step along the gradient plus `momentum` times the momentum.

    Raises:
        ValueError: a value is out of range, or `nesterov` has no momentum or a dampening.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 0.001,
        *,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
    ) -> None:
        if not lr >= 0.0:
            raise ValueError(f"lr={lr}: it must be at least 0")
        if not 0.0 <= momentum < 1.0:
            raise ValueError(f"momentum={momentum}: it must be at least 0 and below 1")
        if not 0.0 <= weight_decay <= 1.0:
            raise ValueError(f"weight_decay={weight_decay}: the part that a step takes away, from 0 to 1")
        if nesterov and (not momentum or dampening):
            raise ValueError(f"nesterov needs momentum above 0 and no dampening, got {momentum} and {dampening}")
        super().__init__(
            params,
            {
                "lr": lr,
                "momentum": momentum,
                "dampening": dampening,
                "weight_decay": weight_decay,
                "nesterov": nesterov,
            },
        )

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group, whose decay is relative to the lr that it comes with."""
        super().add_param_group(param_group)
        self.param_groups[-1].setdefault("initial_lr", self.param_groups[-1]["lr"])

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
                _decay(parameter, group)
                direction = parameter.grad
                if momentum:
                    state = self.state[parameter]
                    if state:
                        state["momentum_buffer"].mul_(momentum).add_(parameter.grad, alpha=1.0 - group["dampening"])
                    else:
                        state["momentum_buffer"] = parameter.grad.clone()
                    buffer = state["momentum_buffer"]
                    direction = parameter.grad.add(buffer, alpha=momentum) if group["nesterov"] else buffer
                parameter.add_(direction, alpha=-group["lr"])
        return loss


def _decay(parameter: Tensor, group: dict[str, Any]) -> None:
    if group["weight_decay"]:
        factor = group["lr"] / group["initial_lr"] if group["initial_lr"] else 1.0
        parameter.mul_(1.0 - factor * group["weight_decay"])
