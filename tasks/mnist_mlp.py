"""A multi-layer perceptron on small images: MNIST, or the digits that come with scikit-learn."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from optbench.data import ImageData, check_batch_size, full_batches, passes
from optbench.seeding import stream

EVALUATION_BATCH_SIZE = 10_000


class ImageMlp:
    """Fully connected layers with ReLU between them, PyTorch's default initialisation and cross-entropy.

    Minibatches go through a new permutation of the training set in each pass; a last, smaller one is dropped.

    Args:
        data: the images.
        hidden_sizes: width of each hidden layer.
        batch_size: images in a minibatch.
        init_seed: of the weights; None derives it from `seed`.
        order_seed: of the minibatches' order, with `seed` added to it; None derives it from `seed`.
        seed: the trial's seed.
        device: where to train.
    """

    def __init__(
        self,
        *,
        data: ImageData,
        hidden_sizes: Sequence[int],
        batch_size: int,
        init_seed: int | None,
        order_seed: int | None,
        seed: int,
        device: torch.device,
    ) -> None:
        check_batch_size(batch_size, len(data.train_inputs))
        self._data = data
        self._batch_size = batch_size
        self._order_seed = stream(seed, "order") if order_seed is None else order_seed + seed
        sizes = (data.train_inputs[0].numel(), *hidden_sizes, data.num_classes)
        with torch.random.fork_rng(devices=[]):  # on the CPU first: the same weights on every device
            torch.manual_seed(stream(seed, "init") if init_seed is None else init_seed)
            layers: list[nn.Module] = [nn.Flatten()]
            for inputs, outputs in pairwise(sizes):
                layers += [nn.Linear(inputs, outputs), nn.ReLU()]
        self.model = nn.Sequential(*layers[:-1]).to(device)

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Inputs and labels, in the order of `DataLoader(shuffle=True, drop_last=True, generator=...)`."""
        inputs, labels = self._data.train_inputs, self._data.train_labels
        for order in passes(len(inputs), seed=self._order_seed, device=inputs.device):
            for batch in full_batches(order, self._batch_size):
                yield self._data.ready(inputs[batch]), labels[batch]

    def loss(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Mean cross-entropy of the minibatch."""
        inputs, labels = batch
        return functional.cross_entropy(self.model(inputs), labels)

    @torch.no_grad()
    def evaluate(self) -> Mapping[str, float]:
        """`test_loss`, the mean cross-entropy, and `test_accuracy`, in [0, 1], over the whole test set."""
        labels = self._data.test_labels
        loss = torch.zeros((), device=labels.device)
        correct = torch.zeros((), device=labels.device)
        for start in range(0, len(labels), EVALUATION_BATCH_SIZE):
            part = slice(start, start + EVALUATION_BATCH_SIZE)
            outputs = self.model(self._data.ready(self._data.test_inputs[part]))
            loss += functional.cross_entropy(outputs, labels[part], reduction="sum")
            correct += (outputs.argmax(1) == labels[part]).sum()
        return {"test_loss": loss.item() / len(labels), "test_accuracy": correct.item() / len(labels)}
