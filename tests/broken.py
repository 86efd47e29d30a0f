"""Optimizers that are wrong on purpose: a reproduction that does not see it is worthless."""

from typing import Any

import torch


class SwappedMomentum(torch.optim.SGD):
    """Momentum that averages where it should accumulate: its steps are a hundredth of the right ones."""

    def __init__(self, params: Any, **kwargs: Any) -> None:
        super().__init__(params, **{**kwargs, "dampening": kwargs["momentum"]})


class CoupledAdamW(torch.optim.Adam):
    """AdamW whose decay goes through the gradient, as L2 regularisation does."""
