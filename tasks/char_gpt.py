"""A small GPT that predicts the next character of a text."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, get_type_hints

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from optbench.errors import UsageError
from optbench.parsing import parse_value
from optbench.seeding import stream
from optbench.text import TextData

# The same for every trial, so that what is left between two of them is the model.
EVALUATION_SEED = 0
EVALUATION_BATCH_SIZE = 64
MODELS = ("gpt_shakespeare_cpu", "gpt_shakespeare")
DATA = ("shakespeare",)
INIT_STD = 0.02
# Offsets are drawn for so many minibatches at once, since a GPU stops for each transfer.
NUM_DRAWN = 500


@dataclass(frozen=True, kw_only=True)
class GptConfig:
    """What a GPT is made of; how many characters there are comes from the text.

    Attributes:
        block_size: the most characters that it sees at once.
        dim: width.
        depth: how many blocks.
        num_heads: of the attention; they share the width.
        dropout: of the embedded characters, the attention's weights, and what attention and MLP give.
        bias: whether linear layers and norms have biases.
    """

    block_size: int
    dim: int
    depth: int
    num_heads: int
    dropout: float
    bias: bool

    def __post_init__(self) -> None:
        hints = get_type_hints(type(self))
        for field in fields(self):
            parse_value(getattr(self, field.name), hints[field.name], where=f"model.{field.name}")
        for name in ("block_size", "dim", "depth", "num_heads"):
            if getattr(self, name) < 1:
                raise UsageError(f"model.{name}={getattr(self, name)}: expected 1 or more.")
        if self.dim % self.num_heads:
            raise UsageError(
                f"model.num_heads={self.num_heads} does not divide model.dim={self.dim}: each head has the same width."
            )
        if not 0 <= self.dropout < 1:
            raise UsageError(f"model.dropout={self.dropout}: expected a number from 0 to below 1.")


class CausalAttention(nn.Module):
    """Scaled dot products of queries and keys, in several heads, of each place with those before it and itself.

    Args:
        config: of the GPT.
    """

    def __init__(self, config: GptConfig) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.dropout = config.dropout
        self.qkv = nn.Linear(config.dim, 3 * config.dim, bias=config.bias)
        self.out = nn.Linear(config.dim, config.dim, bias=config.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Of (batch, characters, dim), the same shape."""
        queries, keys, values = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        dropout = self.dropout if self.training else 0.0
        found = functional.scaled_dot_product_attention(queries, keys, values, dropout_p=dropout, is_causal=True)
        mixed: Tensor = self.out(found.transpose(1, 2).flatten(2))
        return mixed


class Block(nn.Module):
    """Attention and a perceptron, each behind a norm and beside a residual connection.

    Args:
        config: of the GPT.
    """

    def __init__(self, config: GptConfig) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(config.dim, bias=config.bias)
        self.attention = CausalAttention(config)
        self.attention_dropout = nn.Dropout(config.dropout)
        self.mlp_norm = nn.LayerNorm(config.dim, bias=config.bias)
        self.mlp = nn.Sequential(
            nn.Linear(config.dim, 4 * config.dim, bias=config.bias),
            nn.GELU(),
            nn.Linear(4 * config.dim, config.dim, bias=config.bias),
            nn.Dropout(config.dropout),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Of (batch, characters, dim), the same shape."""
        x = x + self.attention_dropout(self.attention(self.attention_norm(x)))
        mixed: Tensor = x + self.mlp(self.mlp_norm(x))
        return mixed


class Gpt(nn.Module):
    """A transformer in which each character sees those before it (Radford et al., 2019, GPT-2), as nanoGPT has it.

    https://github.com/karpathy/nanoGPT (model.py): the last layer's weights are the embedding's, and weights start with
    a standard deviation of 0.02, in layers that add to the residual stream divided by the root of how many these are.

    Args:
        config: what it is made of.
        num_characters: that there are.
    """

    def __init__(self, config: GptConfig, *, num_characters: int) -> None:
        super().__init__()
        self.is_checkpointing = False
        self.tokens = nn.Embedding(num_characters, config.dim)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.dim, bias=config.bias)
        # Behind the blocks: Muon leaves out the first and the last weight of a model, which are embeddings then.
        self.positions = nn.Embedding(config.block_size, config.dim)
        self.head = nn.Linear(config.dim, num_characters, bias=False)
        self.head.weight = self.tokens.weight
        self._init(config)

    def forward(self, characters: Tensor) -> Tensor:
        """Logits of the next character at each place, (batch, characters, num_characters)."""
        x = self.dropout(self.tokens(characters) + self.positions.weight[: characters.shape[1]])
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=False) if self.is_checkpointing and self.training else block(x)
        logits: Tensor = self.head(self.norm(x))
        return logits

    def gradient_checkpointing_enable(self) -> None:
        """Keep what goes into each block alone, and go through the block again in the backward pass."""
        self.is_checkpointing = True

    def _init(self, config: GptConfig) -> None:
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.Embedding)):
                nn.init.normal_(module.weight, std=INIT_STD)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)
        for name, parameter in self.named_parameters():
            if name.endswith(("attention.out.weight", "mlp.2.weight")):
                nn.init.normal_(parameter, std=INIT_STD / math.sqrt(2 * config.depth))


class CharGpt:
    """A GPT and the cross-entropy of the next character, in pieces of a text that begin anywhere.

    Args:
        data: the text.
        model: what the GPT is made of.
        batch_size: pieces in a minibatch, each of `model.block_size` characters, drawn with replacement.
        num_eval_batches: so many minibatches of the test split are evaluated, which are the same for every trial; None
            or 0 is the whole split, in pieces that follow each other.
        seed: the trial's seed.
        device: where to train.

    Raises:
        UsageError: a value is out of its range, the text is too short, or data or model are of another kind.
    """

    def __init__(
        self,
        *,
        data: TextData,
        model: GptConfig,
        batch_size: int,
        num_eval_batches: int | None,
        seed: int,
        device: torch.device,
    ) -> None:
        _check_kinds(data, model)
        if batch_size < 1:
            raise UsageError(f"task.batch_size={batch_size}: expected 1 or more.")
        if num_eval_batches is not None and num_eval_batches < 0:
            raise UsageError(f"task.num_eval_batches={num_eval_batches}: expected 0 or more, or null.")
        for name, part in (("training", data.train), ("test", data.test)):
            if len(part) <= model.block_size:
                raise UsageError(
                    f"model.block_size={model.block_size}: the text has {len(part)} characters for {name}, and a piece "
                    f"with what follows it takes {model.block_size + 1}.\n"
                    "Choose a longer text with data.path=..., or another model.block_size=..."
                )
        self._data = data
        self._block_size = model.block_size
        self._batch_size = batch_size
        self._num_eval_batches = num_eval_batches or 0
        self._seed = seed
        with torch.random.fork_rng(devices=[]):  # on the CPU first: the same weights on every device
            torch.manual_seed(stream(seed, "init"))
            gpt = Gpt(model, num_characters=len(data.characters))
        self.model = gpt.to(device)

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Characters, and those that follow each, both (batch_size, block_size)."""
        text = self._data.train
        generator = torch.Generator().manual_seed(stream(self._seed, "order"))
        while True:
            starts = torch.randint(len(text) - self._block_size, (NUM_DRAWN, self._batch_size), generator=generator)
            for batch in starts.to(text.device):
                yield _pieces(text, batch, size=self._block_size)

    def loss(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Mean cross-entropy of the minibatch, in nats for each character."""
        inputs, targets = batch
        return functional.cross_entropy(self.model(inputs).flatten(0, 1), targets.flatten())

    @torch.no_grad()
    def evaluate(self) -> Mapping[str, float]:
        """`test_loss`, the mean cross-entropy in nats for each character of the test split; no dropout."""
        was_training = self.model.training
        self.model.eval()
        total = torch.zeros((), dtype=torch.float64, device=self._data.test.device)
        num_characters = 0
        for inputs, targets in self._evaluated():
            outputs = self.model(inputs).flatten(0, 1)
            total += functional.cross_entropy(outputs, targets.flatten(), reduction="sum")
            num_characters += targets.numel()
        self.model.train(was_training)
        return {"test_loss": total.item() / num_characters}

    def _evaluated(self) -> Iterator[tuple[Tensor, Tensor]]:
        """What is evaluated, in parts: characters, and those that follow each."""
        text, size = self._data.test, self._block_size
        if self._num_eval_batches:
            generator = torch.Generator().manual_seed(EVALUATION_SEED)
            starts = torch.randint(
                len(text) - size, (self._num_eval_batches * self._batch_size,), generator=generator
            ).to(text.device)
        else:
            starts = torch.arange(0, len(text) - size, size, device=text.device)
        for part in starts.split(EVALUATION_BATCH_SIZE):
            yield _pieces(text, part, size=size)
        rest = (len(text) - 1) % size  # characters whose successors no whole piece has
        if rest and not self._num_eval_batches:
            yield _pieces(text, torch.tensor([len(text) - 1 - rest], device=text.device), size=rest)


def _pieces(text: Tensor, starts: Tensor, *, size: int) -> tuple[Tensor, Tensor]:
    """The pieces of a text that start there, and the same one character later."""
    found = text[starts[:, None] + torch.arange(size + 1, device=text.device)].long()
    return found[:, :-1], found[:, 1:]


def _check_kinds(data: Any, model: Any) -> None:
    if not isinstance(data, TextData):
        raise UsageError(
            f"task=char_gpt learns from a text, not from {type(data).__name__}: data={', '.join(DATA)}, "
            "or yours with data.path=<file> data.sha256=null."
        )
    if not isinstance(model, GptConfig):
        raise UsageError(f"task=char_gpt takes model={', '.join(MODELS)}, not a {type(model).__name__}.")
