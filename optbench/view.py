"""What an optimizer is seen to do: how far a step goes, along which gradient, at which rate of its own."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor


class View:
    """Looks at the last step before a measurement, and at what the optimizer says of itself.

    The weights before the step are kept in the memory of the CPU, so that a GPU's peak is that of the training.

    Args:
        optimizer: under training.
        is_lr_free: whether it estimates its own rate as `d`; others call something else so, as Adafactor its threshold.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, *, is_lr_free: bool = False) -> None:
        self._is_lr_free = is_lr_free
        self._groups: Sequence[Mapping[str, Any]] = optimizer.param_groups
        self._parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        self._before: list[Tensor] | None = None

    def before_step(self) -> None:
        """Note the weights."""
        self._before = [parameter.detach().to("cpu", copy=True) for parameter in self._parameters]

    def after_step(self, grad_norm: Tensor | None) -> dict[str, float]:
        """What the step did; nothing where the weights were not noted before it.

        Args:
            grad_norm: of the gradient that it followed.

        Returns:
            `update_rms`, the root mean square over all trained values of what the step changed, and `grad_norm`.
        """
        before, self._before = self._before, None
        if before is None:
            return {}
        moved = sum(
            (now.detach().cpu().double() - then.double()).square().sum().item()
            for now, then in zip(self._parameters, before, strict=True)
        )
        seen = {"update_rms": math.sqrt(moved / max(1, sum(then.numel() for then in before)))}
        return seen if grad_norm is None else {**seen, "grad_norm": float(grad_norm)}

    def rates(self) -> dict[str, float]:
        """`d`, the distance that Prodigy and D-Adaptation estimate, and `effective_lr`, d times lr; of others none."""
        group = self._groups[0]
        if not self._is_lr_free or "d" not in group or group["lr"] is None:
            return {}
        d = float(group["d"])
        return {"d": d, "effective_lr": d * float(group["lr"])}
