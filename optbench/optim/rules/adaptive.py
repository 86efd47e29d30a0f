"""Rates from squared gradients, without momentum of their own: AdaGrad, RMSProp, AdaDelta."""

import torch
from torch import Tensor

from optbench.optim.rules.base import Scalar, State, average, next_step, per_tensor


@per_tensor
def adagrad(
    state: State,
    param: Tensor,
    grad: Tensor,
    *,
    lr: Scalar,
    eps: Scalar,
    lr_decay: Scalar = 0.0,
    weight_decay: Scalar = 0.0,
    initial_accumulator_value: Scalar = 0.0,
) -> tuple[Tensor, State]:
    """AdaGrad, Duchi, Hazan and Singer (2011), figure 1 with diagonal matrices; eps is their delta.

    `lr_decay` is PyTorch's.
    """
    grad = grad + weight_decay * param
    t = next_step(state, param)
    total = state.get("total", initial_accumulator_value) + grad**2
    return param - lr / (1 + (t - 1) * lr_decay) * grad / (total.sqrt() + eps), {"step": t, "total": total}


@per_tensor
def rmsprop(
    state: State,
    param: Tensor,
    grad: Tensor,
    *,
    lr: Scalar,
    alpha: Scalar,
    eps: Scalar,
    weight_decay: Scalar = 0.0,
    momentum: Scalar = 0.0,
    centered: bool = False,
) -> tuple[Tensor, State]:
    """RMSProp, Tieleman and Hinton (2012), lecture 6e; centered, and with momentum, as Graves (2013), eq. 38 to 41.

    As in PyTorch: eps outside the root, where Graves has it inside, and the rate outside the momentum.
    """
    grad = grad + weight_decay * param
    new = {"v": average(state.get("v", 0.0), grad**2, alpha)}
    variance = new["v"]
    if centered:
        new["mean"] = average(state.get("mean", 0.0), grad, alpha)
        variance = variance - new["mean"] ** 2
    new["momentum"] = momentum * state.get("momentum", 0.0) + grad / (variance.sqrt() + eps)
    return param - lr * new["momentum"], new


@per_tensor
def adadelta(
    state: State,
    param: Tensor,
    grad: Tensor,
    *,
    lr: Scalar,
    rho: Scalar,
    eps: Scalar,
    weight_decay: Scalar = 0.0,
) -> tuple[Tensor, State]:
    """AdaDelta, Zeiler (2012), algorithm 1; the paper has no rate, which is lr = 1."""
    grad = grad + weight_decay * param
    v = average(state.get("v", 0.0), grad**2, rho)
    moved = state.get("moved", torch.zeros_like(param))
    delta = ((moved + eps) / (v + eps)).sqrt() * grad
    return param - lr * delta, {"v": v, "moved": average(moved, delta**2, rho)}
