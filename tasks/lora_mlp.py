"""LoRA on a small perceptron: pretrained on upright images, adapted to turned ones, in seconds on one core."""

import hashlib
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from optbench.data import ImageData, has_values
from optbench.errors import UsageError
from optbench.lora.adapters import Lora, adapter_parameters, add_adapters
from optbench.lora.recipes import cached
from optbench.parsing import parse
from optbench.seeding import stream

EVALUATION_BATCH_SIZE = 10_000
VERSION = 1  # of `_pretrain`, so that a base trained in another way is not taken for this one
WEIGHTS = "model.safetensors"


@dataclass(frozen=True, kw_only=True)
class Pretraining:
    """How the base is trained: by Adam with PyTorch's betas, on the CPU, on upright images.

    Attributes:
        num_steps: of training.
        batch_size: images in a minibatch.
        lr: of every step.
        seed: of the weights and of the order of the images.
        num_threads: of PyTorch; sums over other numbers of them differ in their last digits.
    """

    num_steps: int
    batch_size: int
    lr: float
    seed: int
    num_threads: int

    def __post_init__(self) -> None:
        for key in ("num_steps", "batch_size", "num_threads"):
            if getattr(self, key) < 1:
                raise UsageError(f"task.pretraining.{key}={getattr(self, key)}: it must be above 0.")
        if not self.lr > 0.0:
            raise UsageError(f"task.pretraining.lr={self.lr}: it must be above 0.")


class LoraMlp:
    """A frozen perceptron with layers fc1, fc2, ... that knows upright images; LoRA adapts it to turned ones.

    The base is trained once and kept in the cache: it is the same for every seed, which decides the adapters' start
    and the order of the minibatches. These go through a new permutation of the training set in each pass; a last,
    smaller one is dropped.

    Args:
        data: the images, upright.
        hidden_sizes: width of each hidden layer, with ReLU behind it.
        quarter_turns: by which images are turned for the adapters, counter-clockwise.
        batch_size: images in a minibatch.
        loss_scale: factor of the training loss; metrics are without it.
        pretraining: the keys of `Pretraining`.
        lora: the keys of `optbench.lora.adapters.Lora`.
        seed: the trial's seed.
        device: where to train.

    Raises:
        UsageError: a value is none that it can have, or a target matches no layer.
    """

    def __init__(
        self,
        *,
        data: ImageData,
        hidden_sizes: Sequence[int],
        quarter_turns: int,
        batch_size: int,
        loss_scale: float,
        pretraining: Mapping[str, Any],
        lora: Mapping[str, Any],
        seed: int,
        device: torch.device,
    ) -> None:
        recipe = parse(Pretraining, pretraining, where="task.pretraining")
        for key, size in (("batch_size", batch_size), ("pretraining.batch_size", recipe.batch_size)):
            if not 1 <= size <= len(data.train_inputs):
                raise UsageError(f"task.{key}={size}: there are {len(data.train_inputs)} training images.")
        if not loss_scale > 0.0:
            raise UsageError(f"task.loss_scale={loss_scale}: it must be above 0.")
        self._data = data
        self._quarter_turns = quarter_turns
        self._batch_size = batch_size
        self._loss_scale = loss_scale
        self._seed = seed
        self._lora = Lora.parse(lora)
        self.model = _base(data, (data.train_inputs[0].numel(), *hidden_sizes, data.num_classes), recipe).to(device)
        add_adapters(self.model, self._lora, seed=seed)

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Turned inputs and their labels."""
        for inputs, labels in _minibatches(self._data, self._batch_size, seed=stream(self._seed, "order")):
            yield self._turned(inputs), labels

    def loss(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Mean cross-entropy of the minibatch, times `loss_scale`."""
        inputs, labels = batch
        return functional.cross_entropy(self.model(inputs), labels) * self._loss_scale

    @torch.no_grad()
    def evaluate(self) -> Mapping[str, float]:
        """`test_loss`, the mean cross-entropy, and `test_accuracy`, in [0, 1], over all test images, turned."""
        labels = self._data.test_labels
        loss = torch.zeros((), device=labels.device)
        correct = torch.zeros((), device=labels.device)
        self.model.eval()  # without dropout
        for start in range(0, len(labels), EVALUATION_BATCH_SIZE):
            part = slice(start, start + EVALUATION_BATCH_SIZE)
            outputs = self.model(self._turned(self._data.test_inputs[part]))
            loss += functional.cross_entropy(outputs, labels[part], reduction="sum")
            correct += (outputs.argmax(1) == labels[part]).sum()
        self.model.train()
        return {"test_loss": loss.item() / len(labels), "test_accuracy": correct.item() / len(labels)}

    def save(self, folder: Path) -> None:
        """Leave the adapters as `adapter.safetensors`; the frozen layers are in the cache."""
        from safetensors.torch import save_file

        tensors = {name: value.detach().cpu().contiguous() for name, value in adapter_parameters(self.model).items()}
        save_file(tensors, folder / "adapter.safetensors")

    def _turned(self, inputs: Tensor) -> Tensor:
        return torch.rot90(inputs, self._quarter_turns, (-2, -1)).contiguous()


def _minibatches(data: ImageData, batch_size: int, *, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    inputs, labels = data.train_inputs, data.train_labels
    generator = torch.Generator().manual_seed(seed)
    while True:
        order = torch.randperm(len(inputs), generator=generator).to(inputs.device)
        for start in range(0, len(inputs) - batch_size + 1, batch_size):
            batch = order[start : start + batch_size]
            yield inputs[batch], labels[batch]


def _base(data: ImageData, sizes: Sequence[int], recipe: Pretraining) -> nn.Sequential:
    """The pretrained model, on the CPU; while memory is predicted, one of the same shapes."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream(recipe.seed, "init"))
        model = _mlp(sizes)
    if has_values():
        from safetensors.torch import load_file

        asked = {"version": VERSION, "sizes": list(sizes), "data": _digest(data), **asdict(recipe)}
        folder = cached("lora_mlp", asked, partial(_pretrain, model=model, data=data, recipe=recipe))
        model.load_state_dict(load_file(folder / WEIGHTS))
    return model


def _mlp(sizes: Sequence[int]) -> nn.Sequential:
    layers: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
    for index, (inputs, outputs) in enumerate(pairwise(sizes), start=1):
        if index > 1:
            layers[f"relu{index - 1}"] = nn.ReLU()
        layers[f"fc{index}"] = nn.Linear(inputs, outputs)
    return nn.Sequential(layers)


def _digest(data: ImageData) -> str:
    """The SHA-256 of what the base is trained on."""
    digest = hashlib.sha256()
    for tensor in (data.train_inputs, data.train_labels):
        digest.update(tensor.cpu().contiguous().numpy().data)
    return digest.hexdigest()


def _pretrain(folder: Path, *, model: nn.Module, data: ImageData, recipe: Pretraining) -> None:
    """Train the model as it stands, and leave its weights in the folder."""
    from safetensors.torch import save_file

    optimizer = torch.optim.Adam(model.parameters(), lr=recipe.lr)
    batches = _minibatches(data, recipe.batch_size, seed=stream(recipe.seed, "order"))
    num_threads = torch.get_num_threads()
    torch.set_num_threads(recipe.num_threads)
    try:
        for _ in range(recipe.num_steps):
            inputs, labels = next(batches)
            optimizer.zero_grad()
            functional.cross_entropy(model(inputs.cpu()), labels.cpu()).backward()
            optimizer.step()
    finally:
        torch.set_num_threads(num_threads)
        optimizer.zero_grad()  # whoever trains the base keeps no more memory than those who read it
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, folder / WEIGHTS)
