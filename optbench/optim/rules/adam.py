"""Adam, and those that differ from it in the bias correction, in eps, or in the memory of the second moment."""

import torch
from torch import Tensor

from optbench.optim.rules.base import Betas, Scalar, State, average, next_step, per_tensor


def moments(state: State, grad: Tensor, *, betas: Betas) -> dict[str, Tensor]:
    """The step and Adam's two moments after it: Kingma and Ba (2015), algorithm 1, before the correction."""
    return {
        "step": next_step(state, grad),
        "m": average(state.get("m", 0.0), grad, betas[0]),
        "v": average(state.get("v", 0.0), grad**2, betas[1]),
    }


def adam_step(
    state: State, grad: Tensor, *, lr: Scalar, betas: Betas, eps: Scalar, amsgrad: bool = False
) -> tuple[Tensor, State]:
    """Adam's step lr m_hat / (sqrt(v_hat) + eps) and its state: Kingma and Ba (2015), algorithm 1.

    With `amsgrad` v is the largest so far: Reddi, Kale and Kumar (2018), algorithm 2.
    """
    new = moments(state, grad, betas=betas)
    v = new["v"]
    if amsgrad:
        v = new["v_max"] = torch.maximum(state.get("v_max", v), v)
    m_hat = new["m"] / (1 - betas[0] ** new["step"])
    v_hat = v / (1 - betas[1] ** new["step"])
    return lr * m_hat / (v_hat.sqrt() + eps), new


def decayed(param: Tensor, grad: Tensor, *, lr: Scalar, weight_decay: Scalar, decoupled: bool) -> tuple[Tensor, Tensor]:
    """The parameter, shrunk by lr weight_decay where decay is decoupled, and the gradient, with L2 decay where not."""
    return (param * (1 - lr * weight_decay), grad) if decoupled else (param, grad + weight_decay * param)


@per_tensor
def adam(
    state: State,
    param: Tensor,
    grad: Tensor,
    *,
    lr: Scalar,
    betas: Betas,
    eps: Scalar,
    weight_decay: Scalar = 0.0,
    amsgrad: bool = False,
    decoupled_weight_decay: bool = False,
) -> tuple[Tensor, State]:
    """Adam, Kingma and Ba (2015), algorithm 1, with L2 decay in the gradient; or outside it, as in AdamW."""
    param, grad = decayed(param, grad, lr=lr, weight_decay=weight_decay, decoupled=decoupled_weight_decay)
    step, state = adam_step(state, grad, lr=lr, betas=betas, eps=eps, amsgrad=amsgrad)
    return param - step, state


@per_tensor
def amsgrad(
    state: State,
    param: Tensor,
    grad: Tensor,
    *,
    lr: Scalar,
    betas: Betas,
    eps: Scalar,
    weight_decay: Scalar = 0.0,
    amsgrad: bool = True,
    decoupled_weight_decay: bool = False,
) -> tuple[Tensor, State]:
    """AMSGrad, Reddi, Kale and Kumar (2018), algorithm 2: the second moment never falls.

    As in PyTorch with Adam's eps and, after the maximum is taken, its bias correction; the paper leaves both out.
    """
    param, grad = decayed(param, grad, lr=lr, weight_decay=weight_decay, decoupled=decoupled_weight_decay)
    step, state = adam_step(state, grad, lr=lr, betas=betas, eps=eps, amsgrad=amsgrad)
    return param - step, state


@per_tensor
def adam_uncorrected(
    state: State, param: Tensor, grad: Tensor, *, lr: Scalar, betas: Betas, eps: Scalar, weight_decay: Scalar = 0.0
) -> tuple[Tensor, State]:
    """Adam without bias correction: Kingma and Ba (2015), algorithm 1 with m and v themselves (section 6.4)."""
    new = moments(state, grad + weight_decay * param, betas=betas)
    return param - lr * new["m"] / (new["v"].sqrt() + eps), new


@per_tensor
def adam_tf(
    state: State, param: Tensor, grad: Tensor, *, lr: Scalar, betas: Betas, eps: Scalar, weight_decay: Scalar = 0.0
) -> tuple[Tensor, State]:
    """Adam as TensorFlow writes it: Kingma and Ba (2015), the reordering at the end of section 2, with its eps hat.

    The bias correction is in the rate, so that eps is added to the uncorrected sqrt(v), and weighs more early on.
    """
    new = moments(state, grad + weight_decay * param, betas=betas)
    rate = lr * (1 - betas[1] ** new["step"]) ** 0.5 / (1 - betas[0] ** new["step"])
    return param - rate * new["m"] / (new["v"].sqrt() + eps), new
