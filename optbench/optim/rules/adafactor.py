"""Adafactor: the second moment of a matrix from a row and a column."""

import torch
from torch import Tensor

from optbench.optim.rules.base import Scalar, State, average, next_step, per_tensor


@per_tensor
def adafactor(
    state: State,
    param: Tensor,
    grad: Tensor,
    *,
    lr: Scalar | None = None,
    eps: tuple[Scalar, Scalar] = (1e-30, 1e-3),
    clip_threshold: Scalar = 1.0,
    decay_rate: Scalar = -0.8,
    beta1: Scalar | None = None,
    weight_decay: Scalar = 0.0,
    scale_parameter: bool = True,
    relative_step: bool = True,
    warmup_init: bool = False,
) -> tuple[Tensor, State]:
    """Adafactor, Shazeer and Stern (2018), algorithms 4 (matrices) and 5 (vectors), with the rates of algorithm 6.

    rho_t = min(0.01, 1/sqrt(t)), alpha_t = max(eps2, RMS(theta)) rho_t. As in transformers: `relative_step=False` puts
    `lr` in place of rho_t, `scale_parameter=False` leaves the RMS out, `beta1` averages the clipped steps, and the
    weights shrink by alpha_t weight_decay (the paper has no decay).
    """
    t = next_step(state, param)
    largest = 1e-6 * t if warmup_init else torch.full_like(t, 1e-2)
    rate = torch.minimum(t**-0.5, largest) if relative_step or lr is None else lr
    alpha = rms(param).clamp(min=eps[1]) * rate if scale_parameter else rate
    new, factors = _second_moment(state, grad**2 + eps[0], beta2=1 - t**decay_rate)
    for factor in factors:  # one after the other: their product could be too small for float32
        grad = grad * factor.rsqrt()
    update = alpha * _clipped(grad, clip_threshold)
    if beta1 is not None:
        update = new["m"] = average(state.get("m", 0.0), update, beta1)
    return param - weight_decay * alpha * param - update, {"step": t, **new}


@per_tensor
def adafactor_torch(
    state: State,
    param: Tensor,
    grad: Tensor,
    *,
    lr: Scalar,
    beta2_decay: Scalar = -0.8,
    eps: tuple[Scalar | None, Scalar] = (None, 1e-3),
    d: Scalar = 1.0,
    weight_decay: Scalar = 0.0,
) -> tuple[Tensor, State]:
    """Adafactor as in PyTorch: Shazeer and Stern (2018), algorithms 4 and 5, with three differences.

    rho_t = min(lr, 1/sqrt(t)); eps1 is no term of the squared gradient but a floor, of the mean of the rows (eps1) and
    of the second moment (eps1 squared); and the weights shrink by lr weight_decay, not by alpha_t weight_decay.
    """
    t = next_step(state, param)
    floor = torch.finfo(param.dtype).eps if eps[0] is None else eps[0]
    alpha = rms(param).clamp(min=eps[1]) * (t**-0.5).clamp(max=lr)
    new, factors = _second_moment(state, grad**2, beta2=1 - t**beta2_decay, floor=floor)
    v = factors[0] if len(factors) == 1 else factors[0] * factors[1]
    update = alpha * _clipped(grad * v.clamp(min=floor**2).rsqrt(), d)
    return param * (1 - lr * weight_decay) - update, {"step": t, **new}


def rms(tensor: Tensor) -> Tensor:
    """The root of the mean of squares."""
    return (tensor**2).mean().sqrt()


def _clipped(update: Tensor, threshold: Scalar) -> Tensor:
    """The update at a root mean square of at most the threshold: Shazeer and Stern (2018), section 6."""
    return update / (rms(update) / threshold).clamp(min=1.0)


def _second_moment(
    state: State, squared: Tensor, *, beta2: Tensor, floor: Scalar = 0.0
) -> tuple[dict[str, Tensor], list[Tensor]]:
    """The average of squares, whole for a vector, and for a matrix by its factors row / mean(row) and column."""
    if squared.ndim < 2:
        v = average(state.get("v", 0.0), squared, beta2)
        return {"v": v}, [v]
    row = average(state.get("row", 0.0), squared.mean(dim=-1, keepdim=True), beta2)
    column = average(state.get("column", 0.0), squared.mean(dim=-2, keepdim=True), beta2)
    return {"row": row, "column": column}, [row / row.mean(dim=-2, keepdim=True).clamp(min=floor), column]
