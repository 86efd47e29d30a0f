"""Adam with another first moment, second moment, or trust in them: NAdam, AdaMax, RAdam."""

import torch
from torch import Tensor

from optbench.optim.rules.adam import decayed, moments
from optbench.optim.rules.base import Betas, Scalar, State, average, next_step, per_tensor


@per_tensor
def radam(
    state: State,
    param: Tensor,
    grad: Tensor,
    *,
    lr: Scalar,
    betas: Betas,
    eps: Scalar,
    weight_decay: Scalar = 0.0,
    decoupled_weight_decay: bool = False,
) -> tuple[Tensor, State]:
    """RAdam, Liu et al. (2020), algorithm 2: steps by the mean gradient until sqrt(v) can be trusted.

    As in PyTorch: rectified where rho_t > 5 (the paper: 4), with Adam's eps (the paper has none) on the uncorrected
    sqrt(v).
    """
    param, grad = decayed(param, grad, lr=lr, weight_decay=weight_decay, decoupled=decoupled_weight_decay)
    new = moments(state, grad, betas=betas)
    t, m_hat = new["step"], new["m"] / (1 - betas[0] ** new["step"])
    correction = 1 - betas[1] ** t
    rho_inf = 2 / (1 - betas[1]) - 1
    rho = rho_inf - 2 * t * betas[1] ** t / correction
    rectifier = ((rho - 4) * (rho - 2) * rho_inf / ((rho_inf - 4) * (rho_inf - 2) * rho)) ** 0.5
    adaptive = rectifier * correction**0.5 / (new["v"].sqrt() + eps)
    return param - lr * m_hat * torch.where(rho > 5, adaptive, 1.0), new


@per_tensor
def nadam(
    state: State,
    param: Tensor,
    grad: Tensor,
    *,
    lr: Scalar,
    betas: Betas,
    eps: Scalar,
    weight_decay: Scalar = 0.0,
    momentum_decay: Scalar = 0.004,
    decoupled_weight_decay: bool = False,
) -> tuple[Tensor, State]:
    """NAdam, Dozat (2016), algorithm 2: Nesterov's momentum in Adam.

    As in PyTorch beta1 rises to its value: mu_t = beta1 (1 - 0.96^(t momentum_decay) / 2), Dozat's with 0.004 = 1/250.
    """
    param, grad = decayed(param, grad, lr=lr, weight_decay=weight_decay, decoupled=decoupled_weight_decay)
    new = moments(state, grad, betas=betas)
    t = new["step"]
    mu, mu_next = (betas[0] * (1 - 0.5 * 0.96 ** (n * momentum_decay)) for n in (t, t + 1))
    product = new["product"] = state.get("product", 1.0) * mu
    m_bar = (1 - mu) * grad / (1 - product) + mu_next * new["m"] / (1 - product * mu_next)
    return param - lr * m_bar / ((new["v"] / (1 - betas[1] ** t)).sqrt() + eps), new


@per_tensor
def adamax(
    state: State, param: Tensor, grad: Tensor, *, lr: Scalar, betas: Betas, eps: Scalar, weight_decay: Scalar = 0.0
) -> tuple[Tensor, State]:
    """AdaMax, Kingma and Ba (2015), algorithm 2: Adam with the largest gradient, forgetting, in place of sqrt(v).

    As in PyTorch with eps added to |g|, where the paper has none.
    """
    grad = grad + weight_decay * param
    t = next_step(state, param)
    m = average(state.get("m", 0.0), grad, betas[0])
    u = torch.maximum(betas[1] * state.get("u", torch.zeros_like(grad)), grad.abs() + eps)
    return param - lr / (1 - betas[0] ** t) * m / u, {"step": t, "m": m, "u": u}
