"""APOLLO: the gradient of a matrix, scaled by factors that Adam's moments of a small random projection of it give.

Paper: Zhu et al., "APOLLO: SGD-like memory, AdamW-level performance" (2025), https://arxiv.org/abs/2412.05270,
algorithm 1, for a matrix whose gradient G has its larger side, of the channels, along the columns:

    R <- P G                                 P has `rank` rows, normal, of variance 1 / rank
    m, v <- Adam's averages of R and R^2
    s_j <- |m / (sqrt(v) + eps)|_j / |R|_j   of each column j; with one factor for the whole tensor it is APOLLO-Mini
    U <- sqrt(scale) * G diag(s)
    U <- U * min(1, max_norm_growth * |the last U| / |U|)
    theta <- theta - lr * (U + weight_decay * theta)

P is another one every update_proj_gap steps, and drawn again from its seed at each step instead of kept. The paper's
alpha is sqrt(scale), as in the authors' https://github.com/zhuhanqing/APOLLO, where its sqrt(128) is 128. The paper
says nothing of Adam's bias correction, which is of lr here as in their code, outside U and the limiter, nor of matrices
with equal sides, whose channels are the rows, as there. The limiter can come before or after scale: it is all the same.

What differs from their code: decay is of the parameter before the step, as in the paper; P has no more rows than the
smaller side; growth counts from the last U that was not 0, which would stop the matrix for good; the moments are at
least float32. Tensors in groups without `rank`, and those that are no matrices, are AdamW's.
"""

import hashlib
import math
from collections.abc import Callable
from typing import Any, final

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

SCALE_TYPES = ("channel", "tensor")


@final
class APOLLO(torch.optim.Optimizer):
    """Steps along the whole gradient, with rates that a projection to a low rank estimates.

    Matrices are projected in the groups that have the key `rank`, the side that their projections have.

    Args:
        params: parameters, or groups of them.
        lr: learning rate.
        betas: what the averages of the projected gradient and of its square keep at each step.
        eps: is added to the root of the uncorrected average.
        weight_decay: times lr, the part of a parameter that a step takes away.
        scale_type: "channel" or "tensor", what each factor is for.
        scale: its root multiplies the steps of matrices.
        update_proj_gap: steps until the next projection.
        max_norm_growth: what the norm of a matrix's step, per rate, can be times the last; infinity is no limit.
        seed: of the projections; None is the seed that torch has.

    Raises:
        ValueError: a value is out of range.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 0.01,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.0,
        scale_type: str = "channel",
        scale: float = 1.0,
        update_proj_gap: int = 200,
        max_norm_growth: float = 1.01,
        seed: int | None = None,
    ) -> None:
        super().__init__(
            params,
            {
                "lr": lr,
                "betas": betas,
                "eps": eps,
                "weight_decay": weight_decay,
                "scale_type": scale_type,
                "scale": scale,
                "update_proj_gap": update_proj_gap,
                "max_norm_growth": max_norm_growth,
                "seed": seed,
            },
        )

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group of parameters.

        Args:
            param_group: `params`, the `rank` of its matrices' projections, and the values that are its own.

        Raises:
            ValueError: a value is out of range.
        """
        _check({**self.defaults, **param_group})
        super().add_param_group(param_group)
        if self.param_groups[-1]["seed"] is None:
            self.param_groups[-1]["seed"] = torch.initial_seed()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from a saved state.

        Args:
            state_dict: of an optimizer over the same parameters.
        """
        super().load_state_dict(state_dict)
        # torch casts what it loads to the parameters' type, which the moments of bfloat16 parameters do not have
        indices = [index for group in state_dict["param_groups"] for index in group["params"]]
        for index, (_, parameter) in zip(indices, self._members(), strict=True):
            for key, value in state_dict["state"].get(index, {}).items():
                device = value.device if key == "step" else parameter.device
                self.state[parameter][key] = value.to(device, copy=True)

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
        for index, (group, parameter) in enumerate(self._members()):
            if parameter.grad is None:
                continue
            grad = parameter.grad.to(torch.promote_types(parameter.dtype, torch.float32))
            state = self.state[parameter]
            if not state:
                state["step"] = torch.tensor(0.0)
            state["step"] += 1
            num_steps = int(state["step"].item())
            if group.get("rank") is not None and parameter.ndim == 2:
                number = (num_steps - 1) // group["update_proj_gap"]
                update = _of_matrix(grad, state, group, seed=_seed(group["seed"], index, number))
            else:
                update = _adam(grad, state, group)
            beta1, beta2 = group["betas"]
            correction = math.sqrt(1.0 - beta2**num_steps) / (1.0 - beta1**num_steps)
            parameter.mul_(1.0 - group["lr"] * group["weight_decay"])
            parameter.add_(update, alpha=-group["lr"] * correction)
        return loss

    def _members(self) -> list[tuple[dict[str, Any], Tensor]]:
        return [(group, parameter) for group in self.param_groups for parameter in group["params"]]


def _of_matrix(grad: Tensor, state: dict[str, Any], group: dict[str, Any], *, seed: int) -> Tensor:
    """The update of a matrix, uncorrected."""
    is_wide = grad.shape[0] < grad.shape[1]
    channels: Tensor = grad.T if is_wide else grad  # one in each row, so that each is projected along the smaller side
    smaller = channels.shape[1]
    rank = min(group["rank"], smaller)
    generator = torch.Generator(grad.device).manual_seed(seed)
    projection = torch.randn(smaller, rank, generator=generator, device=grad.device, dtype=grad.dtype)
    projected = channels @ projection.div_(math.sqrt(rank))

    dim = 1 if group["scale_type"] == "channel" else None
    adapted = torch.linalg.vector_norm(_adam(projected, state, group), dim=dim, keepdim=True)
    factors = adapted / (torch.linalg.vector_norm(projected, dim=dim, keepdim=True) + 1e-8)  # the authors' 1e-8
    update: Tensor = channels * (factors * math.sqrt(group["scale"]))

    norm = torch.linalg.vector_norm(update)
    last = state.get("norm", torch.zeros_like(norm))
    limited = torch.where(last > 0.0, torch.minimum(norm, last * group["max_norm_growth"]), norm)
    update.mul_(limited / norm.clamp_min(torch.finfo(norm.dtype).tiny))
    state["norm"] = torch.where(limited > 0.0, limited, last)
    return update.T if is_wide else update


def _adam(grad: Tensor, state: dict[str, Any], group: dict[str, Any]) -> Tensor:
    """Adam's step from this gradient, per rate and uncorrected."""
    if "exp_avg" not in state:
        state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(grad), torch.zeros_like(grad)
    beta1, beta2 = group["betas"]
    average: Tensor = state["exp_avg"].lerp_(grad, 1.0 - beta1)
    square: Tensor = state["exp_avg_sq"].mul_(beta2).addcmul_(grad, grad, value=1.0 - beta2)
    return average / square.sqrt().add_(group["eps"])


def _seed(*parts: int) -> int:
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def _check(group: dict[str, Any]) -> None:
    for key in ("lr", "eps", "weight_decay"):
        if not group[key] >= 0.0:
            raise ValueError(f"{key}={group[key]}: it must be at least 0")
    betas, rank, gap = group["betas"], group.get("rank"), group["update_proj_gap"]
    if len(betas) != 2 or not all(0.0 <= beta < 1.0 for beta in betas):
        raise ValueError(f"betas={betas}: two numbers, each at least 0 and below 1")
    if rank is not None and (not isinstance(rank, int) or rank < 1):
        raise ValueError(f"rank={rank}: a whole number, at least 1")
    if not isinstance(gap, int) or gap < 1:
        raise ValueError(f"update_proj_gap={gap}: a whole number, at least 1")
    if group["scale_type"] not in SCALE_TYPES:
        raise ValueError(f"scale_type={group['scale_type']}: choose {' or '.join(SCALE_TYPES)}")
    if not group["scale"] > 0.0:
        raise ValueError(f"scale={group['scale']}: it must be above 0")
    if not group["max_norm_growth"] >= 1.0:
        raise ValueError(f"max_norm_growth={group['max_norm_growth']}: it must be at least 1")
