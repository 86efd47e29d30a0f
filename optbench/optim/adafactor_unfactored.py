"""PaLM's optimizer: Adafactor without factorisation, which is Adam with rates in proportion to the weights.

Paper: Chowdhery et al., "PaLM: scaling language modeling with Pathways" (2022), https://arxiv.org/abs/2204.02311,
section 5, over Shazeer and Stern, "Adafactor" (2018), https://arxiv.org/abs/1804.04235, algorithm 4:

    beta2_t = 1 - t^decay_rate
    v <- beta2_t * v + (1 - beta2_t) * (g^2 + eps[0])
    u <- g / sqrt(v);  u <- u / max(1, RMS(u) / clip_threshold)
    m <- beta1 * m + (1 - beta1) * lr * max(eps[1], RMS(theta)) * u
    theta <- theta * (1 - weight_decay * lr^2) - m

From PaLM: no factors, beta1 = 0.9, decay_rate = -0.8, parameter scaling, and a decay of lr^2, which is weight_decay = 1
here. PaLM says nothing of eps and clip_threshold, which are Adafactor's, nor of where the momentum is: as in the
Adafactors of Tensor2Tensor and transformers it averages the scaled steps, uncorrected. The order of decay and step is
ours. Two averages are kept, as many as Adam's.
"""

from collections.abc import Callable
from typing import final

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT


@final
class AdafactorUnfactored(torch.optim.Optimizer):
    """Adafactor that keeps the whole second moment, with momentum and a decay of lr squared.

    Args:
        params: parameters, or groups of them.
        lr: learning rate, relative to the size of each tensor.
        beta1: what the average of the steps keeps at each step.
        decay_rate: exponent of the step number in beta2, below 0.
        eps: is added to the squared gradient; the least size that a tensor counts as having.
        clip_threshold: the root mean square above which a tensor's update is scaled down.
        weight_decay: times lr squared, the part of a parameter that a step takes away.

    Raises:
        ValueError: a value is out of range.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 0.01,
        *,
        beta1: float = 0.9,
        decay_rate: float = -0.8,
        eps: tuple[float, float] = (1e-30, 0.001),
        clip_threshold: float = 1.0,
        weight_decay: float = 1.0,
    ) -> None:
        if not lr >= 0.0:
            raise ValueError(f"lr={lr}: it must be at least 0")
        if not 0.0 <= beta1 < 1.0:
            raise ValueError(f"beta1={beta1}: it must be at least 0 and below 1")
        if not decay_rate < 0.0:
            raise ValueError(f"decay_rate={decay_rate}: it must be below 0")
        if len(eps) != 2 or not all(value >= 0.0 for value in eps):
            raise ValueError(f"eps={eps}: two numbers, each at least 0")
        if not clip_threshold > 0.0:
            raise ValueError(f"clip_threshold={clip_threshold}: it must be above 0")
        if not weight_decay >= 0.0:
            raise ValueError(f"weight_decay={weight_decay}: it must be at least 0")
        super().__init__(
            params,
            {
                "lr": lr,
                "beta1": beta1,
                "decay_rate": decay_rate,
                "eps": eps,
                "clip_threshold": clip_threshold,
                "weight_decay": weight_decay,
            },
        )

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
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["step"] = 0
                    state["exp_avg"] = torch.zeros_like(parameter)
                    state["exp_avg_sq"] = torch.zeros_like(parameter)
                state["step"] += 1
                least_square, least_size = group["eps"]
                square = parameter.grad.square().add_(least_square)
                state["exp_avg_sq"].lerp_(square, float(state["step"]) ** group["decay_rate"])
                update = parameter.grad / state["exp_avg_sq"].sqrt()
                update.div_((_rms(update) / group["clip_threshold"]).clamp_(min=1.0))
                update.mul_(group["lr"] * _rms(parameter).clamp_(min=least_size))
                state["exp_avg"].lerp_(update, 1.0 - group["beta1"])
                parameter.mul_(1.0 - group["weight_decay"] * group["lr"] ** 2)
                parameter.sub_(state["exp_avg"])
        return loss


def _rms(tensor: Tensor) -> Tensor:
    return tensor.square().mean().sqrt()
