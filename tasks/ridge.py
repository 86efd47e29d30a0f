"""Linear regression with fewer samples than features, where weight decay decides what is found."""

import math
from collections.abc import Iterator, Mapping
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from optbench.data import check_batch_size, full_batches, passes
from optbench.errors import UsageError
from optbench.seeding import stream

Design = Literal["scaled", "isotropic"]
ORACLE_SEED = 12345678
COLUMN_NORM = 10.0
DENSITY = 30.0  # times ln(n) / n is the chance that an entry is not zero


class Ridge:
    """Squared error of a linear model without a bias, on synthetic samples of a fixed oracle.

    `scaled` is the regression of Schaipp (2024), in the words of https://github.com/fabian-sp/step-back: entries from
    N(1, 1) times a factor for each feature from N(0, 10^2), some of them zero, each feature scaled to norm 10.
    `isotropic` has entries from N(0, 1). The targets are those of an oracle of norm 1, plus noise. The features of
    the test set have signs and zeros of their own.

    Args:
        design: how samples are drawn.
        num_samples: of training and of test set.
        dimension: of a sample.
        noise: standard deviation of what is added to a target.
        batch_size: samples in a minibatch; a last, smaller one is dropped.
        init_seed: of the weights; None derives it from `seed`.
        data_seed: of the training samples.
        run_seed: of the order of minibatches and of the test samples, with `seed` added to it.
        seed: the trial's seed.
        device: where to train.
    """

    def __init__(
        self,
        *,
        design: Design,
        num_samples: int,
        dimension: int,
        noise: float,
        batch_size: int,
        init_seed: int | None,
        data_seed: int,
        run_seed: int,
        seed: int,
        device: torch.device,
    ) -> None:
        if num_samples < 2 or dimension < 1 or noise < 0.0:
            raise UsageError(
                f"task.num_samples={num_samples}, task.dimension={dimension}, task.noise={noise}: at least 2 samples, "
                "1 dimension and a noise of 0 are needed."
            )
        check_batch_size(batch_size, num_samples)
        random = np.random.RandomState(ORACLE_SEED)
        oracle = random.randn(dimension)
        oracle /= np.linalg.norm(oracle)
        self._order_seed = run_seed + seed
        self._batch_size = batch_size
        self._inputs, self._targets, self._test_inputs, self._test_targets = (
            torch.tensor(part, dtype=torch.float32, device=device)
            for source in (data_seed, self._order_seed)
            for part in _samples(np.random.RandomState(source), oracle, design, num_samples=num_samples, noise=noise)
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(stream(seed, "init") if init_seed is None else init_seed)
            self.model = nn.Linear(dimension, 1, bias=False).to(device)

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Samples and targets, in a new permutation in each pass."""
        for order in passes(len(self._inputs), seed=self._order_seed, device=self._inputs.device):
            for batch in full_batches(order, self._batch_size):
                yield self._inputs[batch], self._targets[batch]

    def loss(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Mean squared error of the minibatch."""
        inputs, targets = batch
        return functional.mse_loss(self.model(inputs).squeeze(1), targets)

    @torch.no_grad()
    def evaluate(self) -> Mapping[str, float]:
        """`test_loss`, the mean squared error of the test samples."""
        return {"test_loss": self.loss((self._test_inputs, self._test_targets)).item()}


def _samples(
    random: np.random.RandomState, oracle: NDArray[np.float64], design: Design, *, num_samples: int, noise: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Samples and their targets."""
    inputs = random.randn(num_samples, len(oracle))
    if design == "scaled":
        inputs = (inputs + 1.0) * (10.0 * random.randn(len(oracle)))
        inputs *= random.rand(*inputs.shape) < DENSITY * math.log(num_samples) / num_samples
        inputs *= COLUMN_NORM / np.linalg.norm(inputs, axis=0).clip(min=1e-6)
    return inputs, inputs @ oracle + noise * random.randn(num_samples)
