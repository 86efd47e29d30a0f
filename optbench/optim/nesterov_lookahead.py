"""Nesterov's momentum in the form of the papers, which takes the gradient at the point ahead.

Paper: Sutskever, Martens, Dahl and Hinton, "On the importance of initialization and momentum in deep learning" (2013),
equations 3 and 4: https://proceedings.mlr.press/v28/sutskever13.html

    v <- momentum * v - lr * grad f(theta + momentum * v)
    theta <- theta + v

What differs: a training loop takes gradients where the parameters are, so during training they hold the point ahead,
theta + momentum * v. `eval()` moves them to theta and `train()` back; evaluate and save between the two. The lr is
inside v, so a schedule acts with a delay; with a constant lr the points ahead are the iterates of
torch.optim.SGD(nesterov=True). The momentum must not change during training, and weight decay is added to the gradient.
"""

from collections.abc import Callable
from typing import final

import torch
from torch.optim.optimizer import ParamsT


@final
class NesterovLookahead(torch.optim.Optimizer):
    """SGD whose parameters hold the point ahead in train mode, and theta in eval mode.

    Args:
        params: parameters, or groups of them.
        lr: learning rate.
        momentum: the part of the velocity that each step keeps, at least 0 and below 1.
        weight_decay: factor of the parameters that is added to the gradient.

    Raises:
        ValueError: a value is out of range.
    """

    def __init__(self, params: ParamsT, lr: float = 0.001, *, momentum: float = 0.9, weight_decay: float = 0.0) -> None:
        if not lr >= 0.0:
            raise ValueError(f"lr={lr}: it must be at least 0")
        if not 0.0 <= momentum < 1.0:
            raise ValueError(f"momentum={momentum}: it must be at least 0 and below 1")
        if not weight_decay >= 0.0:
            raise ValueError(f"weight_decay={weight_decay}: it must be at least 0")
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "train_mode": True})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override, unused-ignore]
        """Update the parameters from their gradients at the point ahead.

        Args:
            closure: computes the loss and the gradients anew; they are taken as they are without it.

        Raises:
            RuntimeError: the parameters hold theta, after `eval()`.
        """
        if not all(group["train_mode"] for group in self.param_groups):
            raise RuntimeError("step() after eval(): call train() first, gradients belong to the point ahead")
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            momentum = group["momentum"]
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                grad = parameter.grad
                if group["weight_decay"]:
                    grad = grad.add(parameter, alpha=group["weight_decay"])
                state = self.state[parameter]
                if not state:
                    state["velocity"] = torch.zeros_like(parameter)
                velocity = state["velocity"]
                parameter.add_(velocity, alpha=-momentum)  # theta
                velocity.mul_(momentum).add_(grad, alpha=-group["lr"])
                parameter.add_(velocity, alpha=1.0 + momentum)  # one step, and ahead from there
        return loss

    def train(self) -> None:
        """Move the parameters to the point ahead, where gradients are taken; a second call does nothing."""
        self._move(train_mode=True)

    def eval(self) -> None:
        """Move the parameters to theta, the method's iterate; a second call does nothing."""
        self._move(train_mode=False)

    @torch.no_grad()
    def _move(self, *, train_mode: bool) -> None:
        for group in self.param_groups:
            if group["train_mode"] == train_mode:
                continue
            group["train_mode"] = train_mode
            for parameter in group["params"]:
                if "velocity" in self.state[parameter]:
                    distance = group["momentum"] if train_mode else -group["momentum"]
                    parameter.add_(self.state[parameter]["velocity"], alpha=distance)
