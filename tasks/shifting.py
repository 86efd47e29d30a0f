"""A quadratic that is another one from some step on: who forgets what it has seen?"""

import itertools
import math
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from optbench.errors import UsageError
from optbench.seeding import stream


class _Point(nn.Module):
    def __init__(self, start: Tensor) -> None:
        super().__init__()
        self.theta = nn.Parameter(start)


class ShiftingQuadratic:
    """Sum of curvature_i * (theta_i - minimum_i)^2 / 2, whose steepest axis changes its scale on the way.

    The curvatures are spaced evenly in their logarithm, rise with i, and end at 1. All parameters start at 1, and have
    their minimum at 0. From step `change_at` + 1 on, the curvature of the last axis is `factor` times what it was, and
    its minimum has moved by `jump`. A step meets the loss around one sample of the minimum, from N(minimum, noise^2).

    Args:
        dimension: number of parameters.
        condition_number: largest over smallest curvature, at least 1, before the change.
        change_at: steps before the change; None: there is none.
        factor: of the last curvature, above 0.
        jump: of the last minimum.
        noise: standard deviation of a sample in each coordinate.
        seed: the trial's seed; decides the samples.
        device: where to train.

    Raises:
        UsageError: a value is none that it can have.
    """

    def __init__(
        self,
        *,
        dimension: int,
        condition_number: float,
        change_at: int | None,
        factor: float,
        jump: float,
        noise: float,
        seed: int,
        device: torch.device,
    ) -> None:
        if dimension < 1 or condition_number < 1.0:
            raise UsageError(
                f"task.dimension={dimension}, task.condition_number={condition_number}: both are at least 1."
            )
        if not factor > 0.0 or noise < 0.0:
            raise UsageError(f"task.factor={factor}, task.noise={noise}: the first is above 0, the other at least 0.")
        if change_at is not None and change_at < 0:
            raise UsageError(f"task.change_at={change_at}: it is a number of steps, at least 0, or null for no change.")
        self._change_at = math.inf if change_at is None else change_at
        self._noise = noise
        self._seed = seed
        self._device = device
        last = torch.zeros(dimension, device=device)
        last[-1] = 1.0
        before = torch.logspace(-math.log10(condition_number), 0.0, dimension, device=device)
        self._curvatures = before, before * (1.0 + (factor - 1.0) * last)
        self._minima = torch.zeros(dimension, device=device), jump * last
        self._has_changed = False  # for the last minibatch, and so for what is measured after its step
        self.model = _Point(torch.ones(dimension, device=device))

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Curvatures, and a sample of the minimum."""
        generator = torch.Generator().manual_seed(stream(self._seed, "noise"))
        for step in itertools.count():
            self._has_changed = step >= self._change_at
            drawn = torch.randn(len(self._minima[0]), generator=generator).to(self._device)
            yield self._curvatures[self._has_changed], self._minima[self._has_changed] + self._noise * drawn

    def loss(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        """The value around the sample."""
        curvatures, minimum = batch
        value: Tensor = 0.5 * (curvatures * (self.model.theta - minimum) ** 2).sum()
        return value

    @torch.no_grad()
    def evaluate(self) -> Mapping[str, float]:
        """How far there is to go, as the last step met the quadratic.

        `test_loss` is its value, 0 at its minimum: what is more than is needed, the noise aside. `distance` is how far
        the axis that changes is from its minimum.
        """
        minimum = self._minima[self._has_changed]
        return {
            "test_loss": self.loss((self._curvatures[self._has_changed], minimum)).item(),
            "distance": (self.model.theta - minimum)[-1].abs().item(),
        }
