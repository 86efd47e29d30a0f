"""Prodigy: Adam with a rate that it estimates from the distance travelled."""

import math
from typing import Any

import torch
from torch import Tensor

from optbench.optim.rules.base import Betas, Scalar, State, Tensors, average, over_all


@over_all
def prodigy(
    state: State,
    params: Tensors,
    grads: Tensors,
    *,
    lr: Scalar,
    betas: Betas,
    eps: Scalar,
    beta3: Scalar | None = None,
    weight_decay: Scalar = 0.0,
    decouple: bool = True,
    use_bias_correction: bool = False,
    safeguard_warmup: bool = False,
    d0: Scalar = 1e-6,
    d_coef: Scalar = 1.0,
    growth_rate: Scalar = math.inf,
    slice_p: int = 1,
) -> tuple[Tensors, State]:
    """Prodigy, Mishchenko and Defazio (2024), algorithm 4, in the form of prodigyopt.

    r and s are the sums of the paper without their factor 1 - beta3, which cancels in d_hat = r / |s|_1; s is not v,
    Adam's second moment. One d is estimated over all tensors. As in prodigyopt eps is scaled by the new d (the paper:
    by the old one), and a step at rate 0, or before there was any gradient, changes nothing.
    """
    if not decouple:
        grads = tuple(grad + weight_decay * param for param, grad in zip(params, grads, strict=True))
    old = state or _start(params, d0=d0, slice_p=slice_p)
    t, d = old["step"] + 1, old["d"]
    beta3 = betas[1] ** 0.5 if beta3 is None else beta3
    rate = d * lr * ((1 - betas[1] ** t) ** 0.5 / (1 - betas[0] ** t) if use_bias_correction else 1.0)

    m = tuple(average(m, d * g, betas[0]) for m, g in zip(old["m"], grads, strict=True))
    v = tuple(average(v, (d * g) ** 2, betas[1]) for v, g in zip(old["v"], grads, strict=True))
    sliced = [_sliced(g, slice_p) for g in grads]
    path = [start - _sliced(param, slice_p) for start, param in zip(old["start"], params, strict=True)]
    r = beta3 * old["r"] + d / d0 * rate * sum((g * x).sum() for g, x in zip(sliced, path, strict=True))
    weight = d / d0 * (d if safeguard_warmup else rate)
    s = tuple(beta3 * s + weight * g for s, g in zip(old["s"], sliced, strict=True))

    norm = torch.stack([one.abs().sum() for one in s]).sum()
    d_hat = d_coef * r / norm
    d_max = torch.maximum(old["d_max"], d_hat)
    bound = torch.where(d == d0, torch.maximum(d, d_hat), d) * growth_rate
    new_d = torch.minimum(d_max, bound)
    decay = rate * weight_decay if decouple else 0.0
    moved = tuple(
        param - decay * param - rate * m / (v.sqrt() + new_d * eps) for param, m, v in zip(params, m, v, strict=True)
    )
    new = {"step": t, "d": new_d, "d_max": d_max, "r": r, "m": m, "v": v, "s": s, "start": old["start"]}
    moved, new = _where((norm > 0) & (torch.as_tensor(lr) > 0), (moved, new), (params, old))
    return moved, new


def _start(params: Tensors, *, d0: Scalar, slice_p: int) -> dict[str, Any]:
    zero = torch.zeros((), dtype=torch.float64, device=params[0].device)
    zeros = tuple(torch.zeros_like(param) for param in params)
    start = tuple(_sliced(param, slice_p) for param in params)
    s = tuple(torch.zeros_like(one) for one in start)
    return {"step": zero, "d": zero + d0, "d_max": zero + d0, "r": zero, "m": zeros, "v": zeros, "s": s, "start": start}


def _sliced(tensor: Tensor, slice_p: int) -> Tensor:
    """Every so many-th entry: the estimate of d can do with a part of them."""
    return tensor.flatten()[::slice_p]


def _where(condition: Tensor, new: Any, old: Any) -> Any:
    """`torch.where` through nested tuples and dicts of tensors."""
    if isinstance(new, Tensor):
        return torch.where(condition, new, old).to(old.dtype)
    if isinstance(new, dict):
        return {key: _where(condition, value, old[key]) for key, value in new.items()}
    return tuple(_where(condition, one, other) for one, other in zip(new, old, strict=True))
