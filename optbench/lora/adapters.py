"""LoRA: low-rank adapters beside the frozen layers of a model, by peft.

Hu et al. (2021), https://arxiv.org/abs/2106.09685: a layer with weight W computes W x + (alpha / rank) B A x, and A and
B alone are trained.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from optbench.data import has_values
from optbench.errors import UsageError, unknown
from optbench.imports import quiet
from optbench.parsing import parse, parse_list, parse_value
from optbench.seeding import stream

WHERE = "task.lora"
_ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
# What diffusers calls the layers of a transformer block; None is every layer of the kind.
TARGETS: Mapping[str, Sequence[str] | None] = {
    "attention": _ATTENTION,
    "attention_ff": (*_ATTENTION, "ff.net.0.proj", "ff.net.2"),
    "all_linear": None,
    "all_linear_conv": None,
}
INITS = ("kaiming", "gaussian", "orthogonal", "pissa", "pissa_niter_<number>", "olora", "random_b")
_DRAWN = ("kaiming", "gaussian")  # here, after peft has put B at zero
_PEFT_INITS: Mapping[str, bool] = {"kaiming": True, "gaussian": True, "random_b": False}
_PISSA = re.compile(r"pissa(_niter_[1-9][0-9]*)?")
# What each needs first; peft takes the first two without it, and starts from kaiming's values.
_NEEDS_DATA: Mapping[str, str] = {
    "eva": "the singular vectors of each layer's inputs",
    "lora_ga": "each layer's gradient",
    "loftq": "the weights before they are quantised",
    "corda": "the covariance of each layer's inputs",
}


@dataclass(frozen=True, kw_only=True)
class Lora:
    """Which adapters a model gets, and how they start.

    Attributes:
        rank: inner dimension of B A.
        alpha: B A is multiplied by alpha / rank; None is the rank.
        targets: names of sets, those of `TARGETS`, or ends of the names of layers, such as to_q.
        init: one of `INITS`. B starts at zero with kaiming (A uniform, as PyTorch starts a linear layer) and with
            gaussian. With orthogonal it does not, but B A does. With pissa and olora neither does, and peft takes B A
            off the frozen weights, so that the model starts as it was; with random_b nothing is taken off, and the
            model is another one from the start.
        init_std: of A's values with gaussian; None is 1 / rank.
        dropout: probability that an input of A is zeroed.
        rslora: multiply by alpha / sqrt(rank) instead (Kalajdzievski, 2023, https://arxiv.org/abs/2312.03732).
        dora: train each output's magnitude apart (Liu et al., 2024, https://arxiv.org/abs/2402.09353).
    """

    rank: int
    alpha: float | None
    targets: tuple  # type: ignore[type-arg]  # of text; `parse` compares types, and knows no more of them
    init: str
    init_std: float | None
    dropout: float
    rslora: bool
    dora: bool

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise UsageError(f"{WHERE}.rank={self.rank}: it must be above 0.")
        if self.alpha is not None and not 0.0 < self.alpha < math.inf:
            raise UsageError(f"{WHERE}.alpha={self.alpha}: it must be above 0, or null for the rank.")
        if not 0.0 <= self.dropout < 1.0:
            raise UsageError(f"{WHERE}.dropout={self.dropout}: it must be from 0 to below 1.")
        if not self.targets:
            raise UsageError(f"{WHERE}.targets is empty: name layers, or sets such as {', '.join(TARGETS)}.")
        _check_init(self)

    @classmethod
    def parse(cls, config: Mapping[str, Any]) -> "Lora":
        """From the values of a YAML file.

        Raises:
            UsageError: a key is missing or unknown, or its value is none that it can have.
        """
        if "targets" not in config:
            return parse(cls, config, where=WHERE)  # which says so
        targets = config["targets"]
        names = [targets] if isinstance(targets, str) else parse_list(targets, where=f"{WHERE}.targets")
        listed = tuple(parse_value(name, str, where=f"{WHERE}.targets") for name in names)
        return parse(cls, {**config, "targets": listed}, where=WHERE)

    @property
    def scale(self) -> float:
        """What B A is multiplied by."""
        alpha = self.rank if self.alpha is None else self.alpha
        return alpha / (math.sqrt(self.rank) if self.rslora else self.rank)

    @property
    def changes_base(self) -> bool:
        """Whether something is taken off the frozen weights, so that an adapter alone does not give the model back."""
        return self.init == "olora" or self.init.startswith("pissa")


def add_adapters(model: nn.Module, lora: Lora, *, seed: int) -> None:
    """Freeze the model and give it adapters, which alone are trained: float32 whatever the model is.

    While memory is predicted nothing can be decomposed, and every adapter starts with kaiming's shapes.

    Args:
        model: of diffusers or any other; layers quantised by bitsandbytes are taken as they are.
        lora: which adapters.
        seed: the trial's; the values are the same on every device.

    Raises:
        UsageError: a target matches no layer, the start cannot be had for a layer, or peft is not installed.
    """
    if not has_values() and lora.changes_base:
        lora = replace(lora, init="kaiming")
    layers = target_layers(model, lora)
    _check_layers(layers, lora)
    with quiet(extra="lora"):
        from peft import LoraConfig, inject_adapter_in_model
    config: dict[str, Any] = {
        "r": lora.rank,
        "lora_alpha": lora.rank if lora.alpha is None else lora.alpha,
        # In full and nothing else: a name by itself would match whatever ends in it.
        "target_modules": "|".join(re.escape(name) for name in layers),
        "init_lora_weights": _PEFT_INITS.get(lora.init, lora.init),
        "lora_dropout": lora.dropout,
        "use_rslora": lora.rslora,
        "use_dora": lora.dora,
    }
    add = getattr(model, "add_adapter", None)  # of diffusers and transformers, which note there that they have one
    model.requires_grad_(False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream(seed, "adapters"))
        try:
            add(LoraConfig(**config)) if add else inject_adapter_in_model(LoraConfig(**config), model)
        except (TypeError, ValueError) as error:
            raise UsageError(f"{WHERE}: peft refuses these adapters: {error}") from error
        for name, parameter in adapter_parameters(model).items():
            parameter.data = parameter.data.float().clone()  # of its own: peft leaves a part of something larger
            if lora.init in _DRAWN and ".lora_A." in name:
                _draw(parameter, lora)


def adapter_parameters(model: nn.Module) -> Mapping[str, nn.Parameter]:
    """The parameters of the adapters, by name."""
    return {name: parameter for name, parameter in model.named_parameters() if ".lora_" in name}


def target_layers(model: nn.Module, lora: Lora) -> Mapping[str, nn.Module]:
    """The layers that get an adapter, by their full names.

    Raises:
        UsageError: one of the targets matches none; says which layers there are.
    """
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, (nn.Linear, nn.Conv2d))}
    chosen: set[str] = set()
    for target in lora.targets:
        for found in _matches(target, layers):
            if not found:
                raise _nothing(target, layers)
            chosen |= found
    return {name: layer for name, layer in layers.items() if name in chosen}  # in the model's order


def _matches(target: str, layers: Mapping[str, nn.Module]) -> Iterator[set[str]]:
    """The layers of a target; of a set with several names, those of each by itself."""
    kinds = {"all_linear": (nn.Linear,), "all_linear_conv": (nn.Linear, nn.Conv2d)}
    if target in kinds:
        yield {name for name, layer in layers.items() if isinstance(layer, kinds[target])}
        return
    for suffix in TARGETS.get(target) or (target,):
        yield {name for name in layers if name == suffix or name.endswith(f".{suffix}")}


def _nothing(target: str, layers: Mapping[str, nn.Module]) -> UsageError:
    """The error for a target that matches no layer."""
    endings = _endings(layers)
    if target not in TARGETS:
        return unknown("layer", target, [*TARGETS, *endings], where=f"in {WHERE}.targets")
    names = f", and this model does not have all of {', '.join(suffixes)}" if (suffixes := TARGETS[target]) else ""
    listed = ", ".join(endings) or "none that is linear or a convolution"
    return UsageError(
        f"{WHERE}.targets={target}: there is no such layer{names}.\nLayers of this model: {listed}. "
        f"Name some of them, as in {WHERE}.targets=[{endings[0] if endings else 'fc1'}], or another set: "
        f"{', '.join(TARGETS)}."
    )


def _endings(layers: Mapping[str, nn.Module]) -> list[str]:
    """The shortest end of each name that says more than a number, each once: `to_out.0` of `attn1.to_out.0`."""
    found = {}
    for name in layers:
        parts = name.split(".")
        start = next((index for index in reversed(range(len(parts))) if not parts[index].isdigit()), 0)
        found[".".join(parts[start:])] = True
    return list(found)


def _check_init(lora: Lora) -> None:
    if lora.init in _NEEDS_DATA:
        raise UsageError(
            f"{WHERE}.init={lora.init} is refused: it needs {_NEEDS_DATA[lora.init]}, from a pass over the data before "
            f"the training, and there is none here; without it peft does something else or fails.\n"
            f"Use one of {', '.join(INITS)}."
        )
    if lora.init not in INITS[:3] and lora.init not in ("olora", "random_b") and not _PISSA.fullmatch(lora.init):
        raise unknown("value", lora.init, INITS, where=f"for {WHERE}.init")
    if lora.init_std is not None and lora.init != "gaussian":
        raise UsageError(f"{WHERE}.init_std={lora.init_std} is for init=gaussian alone, and this is {lora.init}.")
    if lora.init_std is not None and not 0.0 < lora.init_std < math.inf:
        raise UsageError(f"{WHERE}.init_std={lora.init_std}: with A and B at zero nothing is trained.")
    if lora.init == "orthogonal" and lora.rank % 2:
        raise UsageError(f"{WHERE}.init=orthogonal: A and B share an even rank, and {WHERE}.rank={lora.rank}.")


def _check_layers(layers: Mapping[str, nn.Module], lora: Lora) -> None:
    """Whether each layer can start so. A rank above a layer's own is allowed where A and B are drawn."""
    if lora.init in _PEFT_INITS:
        return
    reasons: dict[str, list[str]] = {}
    for name, layer in layers.items():
        weight = layer.weight
        assert isinstance(weight, Tensor)
        if not isinstance(layer, nn.Linear):
            reasons.setdefault("convolutions", []).append(name)
        elif not weight.is_floating_point():
            reasons.setdefault("quantised", []).append(name)
        elif lora.changes_base and min(weight.shape) < lora.rank:
            reasons.setdefault(f"smaller than {WHERE}.rank={lora.rank}", []).append(name)
    for reason, names in reasons.items():
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        raise UsageError(
            f"{WHERE}.init={lora.init} cannot start layers that are {reason}: {', '.join(names[:3])}{more}.\n"
            f"Use {WHERE}.init=kaiming or gaussian, or other targets."
        )


def _draw(parameter: nn.Parameter, lora: Lora) -> None:
    """Values of A, drawn on the CPU."""
    values = torch.empty(parameter.shape)
    if lora.init == "gaussian":
        nn.init.normal_(values, std=1.0 / lora.rank if lora.init_std is None else lora.init_std)
    else:
        nn.init.kaiming_uniform_(values, a=math.sqrt(5.0))
    parameter.data.copy_(values)
