"""What a task is: the same model, data, loss and metrics for every optimizer."""

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from torch import Tensor, nn


class Task(Protocol):
    """What is trained. Any class with these three methods and this property is a task; nothing is inherited.

    It is built as `Class(**keys of its YAML, seed=..., device=...)`, and with `data=...` where a data set was
    chosen, and `model=...` where a model was. Its random numbers come from the streams of `optbench.seeding`.
    """

    @property
    def model(self) -> nn.Module:
        """The module whose trainable parameters the optimizer gets."""
        ...

    def batches(self) -> Iterator[Any]:
        """An endless stream of minibatches, in the order that the seed gives."""
        ...

    def loss(self, batch: Any) -> Tensor:
        """The training loss of a minibatch: a scalar with a graph behind it."""
        ...

    def evaluate(self) -> Mapping[str, float]:
        """The test metrics of the model as it stands, which it leaves unchanged.

        A task may have one more method, `save(self, folder: Path) -> None`: called after a training that succeeded, it
        leaves files there, such as pictures.
        """
        ...
