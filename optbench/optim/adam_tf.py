"""Adam with eps where TensorFlow has it, inside the bias correction.

Paper: Kingma and Ba, "Adam: a method for stochastic optimization" (2015), https://arxiv.org/abs/1412.6980, the variant
at the end of section 2 ("epsilon hat"), which TensorFlow's and Keras' Adam implement:

    m <- beta1 * m + (1 - beta1) * g
    v <- beta2 * v + (1 - beta2) * g^2
    theta <- theta - lr * sqrt(1 - beta2^t) / (1 - beta1^t) * m / (sqrt(v) + eps)

What differs: algorithm 1, as in torch.optim.Adam, adds eps to sqrt(v / (1 - beta2^t)). Here eps counts as
eps / sqrt(1 - beta2^t) there, 32 times as much at the first step with beta2 = 0.999, so that the early steps of small
gradients are smaller; with eps = 0 the two are one method. Weight decay is added to the gradient.
"""

import math
from collections.abc import Callable
from typing import final

import torch
from torch.optim.optimizer import ParamsT


@final
class AdamTF(torch.optim.Optimizer):
    """Adam with eps added to the root of the uncorrected average.

    Args:
        params: parameters, or groups of them.
        lr: learning rate.
        betas: what the averages of the gradient and of its square keep at each step.
        eps: is added to the root; Keras' default.
        weight_decay: factor of the parameters that is added to the gradient.

    Raises:
        ValueError: a value is out of range.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 0.001,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-7,
        weight_decay: float = 0.0,
    ) -> None:
        if not lr >= 0.0:
            raise ValueError(f"lr={lr}: it must be at least 0")
        if len(betas) != 2 or not all(0.0 <= beta < 1.0 for beta in betas):
            raise ValueError(f"betas={betas}: two numbers, each at least 0 and below 1")
        if not eps >= 0.0:
            raise ValueError(f"eps={eps}: it must be at least 0")
        if not weight_decay >= 0.0:
            raise ValueError(f"weight_decay={weight_decay}: it must be at least 0")
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

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
                grad = parameter.grad
                if group["weight_decay"]:
                    grad = grad.add(parameter, alpha=group["weight_decay"])
                state = self.state[parameter]
                if not state:
                    state["step"] = 0
                    state["exp_avg"] = torch.zeros_like(parameter)
                    state["exp_avg_sq"] = torch.zeros_like(parameter)
                state["step"] += 1
                state["exp_avg"].lerp_(grad, 1.0 - beta1)
                state["exp_avg_sq"].mul_(beta2).addcmul_(grad, grad, value=1.0 - beta2)
                correction = math.sqrt(1.0 - beta2 ** state["step"]) / (1.0 - beta1 ** state["step"])
                denominator = state["exp_avg_sq"].sqrt().add_(group["eps"])
                parameter.addcdiv_(state["exp_avg"], denominator, value=-group["lr"] * correction)
        return loss
