"""Problems with few parameters, on which methods can be told apart exactly."""

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from optbench.errors import UsageError
from optbench.seeding import stream


class _Point(nn.Module):
    """A point in parameter space: the model of a problem that has no inputs."""

    def __init__(self, start: Tensor) -> None:
        super().__init__()
        self.theta = nn.Parameter(start)


class NoisyQuadratic:
    """`quadratic_deep` of DeepOBS (Schneider, Balles and Hennig, 2019): a noisy quadratic in 100 dimensions.

    Loss of a sample x: (theta - x)^T H (theta - x) / 2. Ninety eigenvalues of H are drawn from U(0, 1) and ten from
    U(30, 60), as in the Hessians of deep networks; H is the same for every seed. Training and test set are 1,000
    samples each from N(0, 0.6^2). Every pass goes through the same permutation, as the published runs did.

    Args:
        batch_size: samples in a minibatch; a last, smaller one is dropped, in the test set too.
        seed: the trial's seed; decides the order of the samples.
        device: where to train.
    """

    DIMENSION = 100
    NUM_SAMPLES = 1000

    def __init__(self, *, batch_size: int, seed: int, device: torch.device) -> None:
        if not 1 <= batch_size <= self.NUM_SAMPLES:
            raise UsageError(f"task.batch_size={batch_size}: there are {self.NUM_SAMPLES} samples.")
        self._batch_size = batch_size
        self._hessian = torch.tensor(_deep_hessian(), dtype=torch.float32, device=device)
        samples, test = (
            np.random.RandomState(state).normal(0.0, 0.6, (self.NUM_SAMPLES, self.DIMENSION)) for state in (42, 43)
        )
        order = torch.randperm(self.NUM_SAMPLES, generator=torch.Generator().manual_seed(stream(seed, "order")))
        self._samples = torch.tensor(samples, dtype=torch.float32, device=device)[order.to(device)]
        num_tested = self.NUM_SAMPLES // batch_size * batch_size
        self._test = torch.tensor(test[:num_tested], dtype=torch.float32, device=device)
        self.model = _Point(torch.ones(self.DIMENSION, device=device))

    def batches(self) -> Iterator[Tensor]:
        """Samples, in the same order in every pass."""
        while True:
            for start in range(0, self.NUM_SAMPLES - self._batch_size + 1, self._batch_size):
                yield self._samples[start : start + self._batch_size]

    def loss(self, batch: Tensor) -> Tensor:
        """Mean loss of the minibatch."""
        offset = self.model.theta - batch
        return 0.5 * (offset @ self._hessian * offset).sum(1).mean()

    @torch.no_grad()
    def evaluate(self) -> Mapping[str, float]:
        """`test_loss`, the mean loss of the test samples."""
        return {"test_loss": self.loss(self._test).item()}


class Quadratic:
    """An ill-conditioned quadratic without noise: sum of eigenvalue_i * theta_i^2 / 2.

    The eigenvalues are spaced evenly in their logarithm, the largest being 1 for any condition number; the start is
    drawn from N(0, 1) by the seed.

    Args:
        condition_number: largest over smallest eigenvalue, at least 1.
        dimension: number of parameters.
        seed: the trial's seed; decides the start.
        device: where to train.
    """

    def __init__(self, *, condition_number: float, dimension: int, seed: int, device: torch.device) -> None:
        if condition_number < 1.0 or dimension < 1:
            raise UsageError(
                f"task.condition_number={condition_number}, task.dimension={dimension}: both are at least 1."
            )
        self._eigenvalues = torch.logspace(-math.log10(condition_number), 0.0, dimension, device=device)
        generator = torch.Generator().manual_seed(stream(seed, "init"))
        self.model = _Point(torch.randn(dimension, generator=generator).to(device))

    def batches(self) -> Iterator[None]:
        """Nothing: the loss is the same in every step."""
        while True:
            yield None

    def loss(self, batch: None) -> Tensor:  # noqa: ARG002
        """The value of the quadratic."""
        value: Tensor = 0.5 * (self._eigenvalues * self.model.theta**2).sum()
        return value

    @torch.no_grad()
    def evaluate(self) -> Mapping[str, float]:
        """`test_loss`, the value of the quadratic, which is 0 at its minimum."""
        return {"test_loss": self.loss(None).item()}


class QuadraticFromOnes(Quadratic):
    """The same quadratic from 1 in every coordinate, whatever the seed, with how its extreme coordinates fare.

    Args:
        condition_number: largest over smallest eigenvalue, at least 1.
        dimension: number of parameters; their eigenvalues rise with their place.
        seed: not used; the problem has no randomness.
        device: where to train.
    """

    def __init__(self, *, condition_number: float, dimension: int, seed: int, device: torch.device) -> None:
        super().__init__(condition_number=condition_number, dimension=dimension, seed=seed, device=device)
        with torch.no_grad():
            self.model.theta.fill_(1.0)
            self._start_loss = self.loss(None).item()

    @torch.no_grad()
    def evaluate(self) -> Mapping[str, float]:
        """How far there is to go.

        `test_loss` is the value of the quadratic, 0 at its minimum, and `relative_loss` the same in parts of that at
        the start. `overshoot` is how far the steepest coordinate is past its minimum, and `flattest` how far the
        flattest one is from it.
        """
        value = self.loss(None).item()
        flattest, steepest = self.model.theta[[0, -1]].tolist()
        return {
            "test_loss": value,
            "relative_loss": value / self._start_loss,
            "overshoot": max(-steepest, 0.0),
            "flattest": abs(flattest),
        }


class Saddle:
    """f(x, y) = x^2 - y^2 + y^4/4: a saddle at the origin, minima of -1 at y = +-sqrt(2).

    Args:
        start: x and y of the start. With y = 0 exactly, no method that follows the gradient leaves the ridge.
        seed: not used; the problem has no randomness.
        device: where to train.
    """

    def __init__(self, *, start: Sequence[float], seed: int, device: torch.device) -> None:  # noqa: ARG002
        self.model = _Point(torch.tensor(start, device=device))

    def batches(self) -> Iterator[None]:
        """Nothing: the loss is the same in every step."""
        while True:
            yield None

    def loss(self, batch: None) -> Tensor:  # noqa: ARG002
        """The value of f."""
        x, y = self.model.theta
        value: Tensor = x**2 - y**2 + y**4 / 4
        return value

    @torch.no_grad()
    def evaluate(self) -> Mapping[str, float]:
        """`test_loss`, the value of f, and `distance`, |y|: above 1 the saddle is left behind."""
        return {"test_loss": self.loss(None).item(), "distance": abs(self.model.theta[1].item())}


def _deep_hessian() -> NDArray[np.float64]:
    random = np.random.RandomState(42)
    eigenvalues = np.concatenate((random.uniform(0.0, 1.0, 90), random.uniform(30.0, 60.0, 10)))
    rotation = _random_rotation(NoisyQuadratic.DIMENSION, random)
    hessian: NDArray[np.float64] = rotation.T @ np.diag(eigenvalues) @ rotation
    return hessian


def _random_rotation(dimension: int, random: np.random.RandomState) -> NDArray[np.float64]:
    """A rotation drawn from the Haar measure by the subgroup algorithm of Diaconis and Shahshahani (1987).

    A random rotation of the plane is extended by one dimension at a time, each time with a reflection that takes the
    first axis to a random direction.
    """
    angle = 2.0 * np.pi * random.uniform()
    rotation = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    for size in range(3, dimension + 1):
        direction = random.normal(size=(size, 1))
        mirror = np.eye(size, 1) - direction / np.linalg.norm(direction)
        mirror /= np.linalg.norm(mirror)
        extended = np.eye(size)
        extended[1:, 1:] = rotation
        rotation = extended - 2.0 * mirror @ (mirror.T @ extended)
    return -rotation
