"""Two optimizers as one: each holds some of the parameters."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch


class Combined(torch.optim.Optimizer):
    """Steps each of its parts; groups, state and `state_dict` are those of all parts together.

    A part shares its groups and state with the whole, so that a rate set here is set there.

    Args:
        parts: optimizers of disjoint parameters.

    Attributes:
        parts: these.
    """

    def __init__(self, parts: Sequence[torch.optim.Optimizer]) -> None:
        super().__init__([group for part in parts for group in part.param_groups], {})
        self.parts = tuple(parts)
        self._share()

    def _share(self) -> None:
        start = 0
        for part in self.parts:
            end = start + len(part.param_groups)
            part.param_groups = self.param_groups[start:end]
            part.state = self.state
            start = end

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step of each part; with a closure, that is called once before them."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for part in self.parts:
            part.step()
        return loss

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over groups and state, for all parts."""
        super().load_state_dict(dict(state_dict))
        self._share()
