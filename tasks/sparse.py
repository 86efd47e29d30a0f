"""Bags of words, of which most are rare: where methods with a rate for each parameter have their best case."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from optbench.data import full_batches, passes
from optbench.errors import UsageError
from optbench.seeding import stream

FIRST_FREQUENCY = 0.5  # of the most frequent word


class SparseLogistic:
    """Logistic regression on synthetic documents, 1 for each word that is in one and 0 for all others.

    Word j, from 1, is in half of j^-exponent of the documents, whatever else is in them. The class of a document is
    drawn with the odds exp(sum of the weights of its words); an oracle has the weights, from N(0, weight_scale^2).
    Words that are in less than a part `rare_below` of the documents count as rare. The model starts at zero.

    Args:
        num_words: of the vocabulary.
        num_train: documents to train on.
        num_test: documents to test on.
        exponent: of the power law, at least 0.
        weight_scale: standard deviation of the oracle's weights.
        rare_below: the frequency of the first word that is not rare; there are words on both sides of it.
        batch_size: documents in a minibatch; a last, smaller one is dropped.
        seed: the trial's seed; decides documents, oracle and order.
        device: where to train.

    Raises:
        UsageError: a value is none that it can have.
    """

    def __init__(
        self,
        *,
        num_words: int,
        num_train: int,
        num_test: int,
        exponent: float,
        weight_scale: float,
        rare_below: float,
        batch_size: int,
        seed: int,
        device: torch.device,
    ) -> None:
        for key, size in (("num_words", num_words), ("num_train", num_train), ("num_test", num_test)):
            if size < 2:
                raise UsageError(f"task.{key}={size}: at least 2 are needed.")
        if exponent < 0.0 or not weight_scale > 0.0:
            raise UsageError(
                f"task.exponent={exponent}, task.weight_scale={weight_scale}: the first is at least 0, the other above."
            )
        if not 1 <= batch_size <= num_train:
            raise UsageError(f"task.batch_size={batch_size}: there are {num_train} training documents.")
        frequencies = FIRST_FREQUENCY * np.arange(1, num_words + 1) ** -exponent
        is_rare = frequencies < rare_below
        if is_rare.all() or not is_rare.any():
            raise UsageError(
                f"task.rare_below={rare_below}: words have frequencies from {frequencies[-1]:.2g} to "
                f"{frequencies[0]:.2g}, of which it has to part some from others."
            )
        random = np.random.default_rng(stream(seed, "init"))
        oracle = weight_scale * random.standard_normal(num_words)
        train, test = (_documents(random, frequencies, oracle, num=num) for num in (num_train, num_test))
        has_rare = test[0][:, is_rare].any(1)
        if has_rare.all() or not has_rare.any():
            raise UsageError(f"task.rare_below={rare_below}: all test documents, or none of them, have a rare word.")
        self._order_seed = stream(seed, "order")
        self._batch_size = batch_size
        (
            self._words,
            self._classes,
            self._test_words,
            self._test_classes,
            self._oracle,
            self._has_rare,
            self._is_rare,
        ) = (
            torch.tensor(part, dtype=torch.float32, device=device)
            for part in (*train, *test, oracle, has_rare, is_rare)
        )
        self.model = nn.Linear(num_words, 1).to(device)
        for parameter in self.model.parameters():
            nn.init.zeros_(parameter)

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Documents and classes, in a new permutation in each pass."""
        for order in passes(len(self._words), seed=self._order_seed, device=self._words.device):
            for batch in full_batches(order, self._batch_size):
                yield self._words[batch], self._classes[batch]

    def loss(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Mean cross-entropy of the minibatch."""
        return self._losses(batch).mean()

    @torch.no_grad()
    def evaluate(self) -> Mapping[str, float]:
        """Losses of the test documents, and how much of the oracle's weights is learned.

        `test_loss` is the mean cross-entropy, `rare_loss` that of documents with a rare word, `frequent_loss` that of
        those without. `rare_learned` is the weights of rare words projected on the oracle's, 1 where they are the same,
        and `frequent_learned` that of the others.
        """
        losses = self._losses((self._test_words, self._test_classes))
        is_rare, has_rare = self._is_rare, self._has_rare
        learned = self.model.weight.squeeze(0) * self._oracle
        known = self._oracle.square()
        return {
            "test_loss": losses.mean().item(),
            "rare_loss": ((losses * has_rare).sum() / has_rare.sum()).item(),
            "frequent_loss": ((losses * (1 - has_rare)).sum() / (1 - has_rare).sum()).item(),
            "rare_learned": ((learned * is_rare).sum() / (known * is_rare).sum()).item(),
            "frequent_learned": ((learned * (1 - is_rare)).sum() / (known * (1 - is_rare)).sum()).item(),
        }

    def _losses(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        words, classes = batch
        return functional.binary_cross_entropy_with_logits(self.model(words).squeeze(1), classes, reduction="none")


def _documents(
    random: np.random.Generator, frequencies: NDArray[Any], oracle: NDArray[np.float64], *, num: int
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Documents and their classes."""
    words = random.random((num, len(frequencies))) < frequencies
    return words, random.random(num) < 1.0 / (1.0 + np.exp(-(words @ oracle)))
