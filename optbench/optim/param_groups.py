"""Parameter groups: which parameters get which hyperparameters. The public functions are targets of conf/param_groups/.

A function gets the model and the optimizer's own hyperparameters, and returns what each group has of its own; all that
is not named keeps the optimizer's values. Every trainable parameter ends in exactly one group.
"""

import fnmatch
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from optbench.errors import UsageError, unknown

Matches = Callable[[str, nn.Parameter, nn.Module], bool]
FACTORS = ("lr_factor", "weight_decay_factor")


@dataclass(frozen=True, kw_only=True)
class Bound:
    """The optimizer whose parameters are grouped.

    Attributes:
        name: for people.
        hyperparameters: those of its file, and the defaults of the class for the others.
        decay: what its weight decay means, in the words of its convention; None where it does not say.
        lr_factor: what `lr_scaling` multiplies every rate by; those in `hyperparameters` are multiplied already.
    """

    name: str
    hyperparameters: Mapping[str, Any]
    decay: str | None
    lr_factor: float


@dataclass(frozen=True, kw_only=True)
class Group:
    """Some of the trainable parameters.

    Attributes:
        name: for people.
        params: never empty.
        own: hyperparameters in which the group departs from the optimizer's.
    """

    name: str
    params: Sequence[nn.Parameter]
    own: Mapping[str, Any]


def ordered(*, model: nn.Module, optimizer: Bound, groups: Sequence[Mapping[str, Any]]) -> list[Group]:
    """Groups by ordered patterns: a parameter goes into the first that matches it, or else into a last one, `rest`.

    Args:
        model: its trainable parameters are grouped.
        optimizer: gives the hyperparameters that a group may have, and the values that factors multiply.
        groups: each has `match`, a named rule, a pattern of parameter names such as `*.bias`, or a list of them, and
            its own values: any hyperparameter, or `lr_factor` and `weight_decay_factor`, that multiply the optimizer's.

    Raises:
        UsageError: a group matches nothing, names no hyperparameter of the optimizer, or has no `match`.
    """
    owns = []
    for index, given in enumerate(groups):
        where = f"param_groups.groups[{index}]"
        if not isinstance(given, Mapping) or not given.get("match"):
            raise UsageError(f"{where}: give `match`, one of {', '.join(RULES)} or a pattern such as '*.bias'.")
        _check_patterns(given, model, where=where)
        owns.append(_own({key: value for key, value in given.items() if key != "match"}, optimizer, where=where))
    members: list[list[nn.Parameter]] = [[] for _ in groups]
    rest: list[nn.Parameter] = []
    for name, parameter, module in trainable(model):
        place = _first_match(groups, name=name, parameter=parameter, module=module)
        (rest if place is None else members[place]).append(parameter)
    for given, params in zip(groups, members, strict=True):
        if not params:
            what = f"param_groups: {_title(given)} matches no trainable parameter that no earlier group has."
            raise UsageError(f"{what}\n{_choices(model)}")
    found = zip(groups, members, owns, strict=True)
    named = [Group(name=_title(given), params=params, own=own) for given, params, own in found]
    return named + ([Group(name="rest", params=rest, own={})] if rest else [])


def mup(*, model: nn.Module, optimizer: Bound, base_width: int, compensate_decay: bool) -> list[Group]:
    """Rates of muP for Adam and its kin (Yang et al., 2022): hidden matrices at lr * base_width / fan_in, others at lr.

    The form of the authors' package mup (https://github.com/microsoft/mup).

    Where decay is times lr, the shrink of such a matrix, lr * weight_decay, would fall with the width:
    `compensate_decay` multiplies its weight_decay by fan_in / base_width, so that the shrink is that of the base width.
    Initialisation and output multipliers are the task's.

    Args:
        model: its trainable parameters are grouped.
        optimizer: gives `lr`, and the `weight_decay` that is compensated.
        base_width: the fan-in for which lr was tuned.
        compensate_decay: keep the shrink of hidden matrices independent of the width.

    Raises:
        UsageError: there is no hidden matrix, the base width is not above 0, or the decay is known not to be times lr.
    """
    if base_width < 1:
        raise UsageError(f"param_groups.base_width={base_width}: it must be above 0.")
    compensate_decay = compensate_decay and bool(optimizer.hyperparameters.get("weight_decay"))
    if compensate_decay and optimizer.decay is not None and not _is_times_lr(optimizer.decay):
        raise UsageError(
            f"param_groups=mup: {optimizer.name}'s decay is {optimizer.decay}, for which compensate_decay is not "
            "made: it keeps lr * weight_decay as it was.\nUse param_groups.compensate_decay=false."
        )
    by_fan_in: dict[int, list[nn.Parameter]] = {}
    rest = []
    for _, parameter, hidden in hidden_matrices(model):
        if hidden:
            by_fan_in.setdefault(parameter.shape[1], []).append(parameter)
        else:
            rest.append(parameter)
    if not by_fan_in:
        raise UsageError("param_groups=mup: the model has no hidden matrix; choose another task or leave it out.")
    groups = []
    for fan_in, params in by_fan_in.items():
        given = {"lr_factor": base_width / fan_in}
        if compensate_decay:
            given["weight_decay_factor"] = fan_in / base_width
        own = _own(given, optimizer, where="param_groups=mup")
        groups.append(Group(name=f"hidden, fan-in {fan_in}", params=params, own=own))
    return groups + ([Group(name="rest", params=rest, own={})] if rest else [])


def lora_plus(*, model: nn.Module, optimizer: Bound, ratio: float) -> list[Group]:
    """LoRA+ (Hayou et al., 2024): of a LoRA adapter B A, B is trained at `ratio` times the rate of A.

    Args:
        model: with adapters whose parts are called lora_A and lora_B, as peft does.
        optimizer: gives the rate of A, and of all that is neither.
        ratio: the rate of B over that of A.

    Raises:
        UsageError: there is no adapter, or the ratio is not above 0.
    """
    if not ratio > 0.0:
        raise UsageError(f"param_groups.ratio={ratio}: it must be above 0.")
    found = list(trainable(model))
    outer = [parameter for name, parameter, _ in found if "lora_B" in name.split(".")]
    rest = [parameter for name, parameter, _ in found if "lora_B" not in name.split(".")]
    if not outer:
        raise UsageError(
            "param_groups=lora_plus: the model has no trainable lora_B.\n"
            "Choose a task with LoRA adapters, such as task=lora_mlp, or leave it out."
        )
    own = _own({"lr_factor": ratio}, optimizer, where="param_groups=lora_plus")
    groups = [Group(name="B of the adapters", params=outer, own=own)]
    return groups + ([Group(name="rest", params=rest, own={})] if rest else [])


def trainable(model: nn.Module) -> Iterator[tuple[str, nn.Parameter, nn.Module]]:
    """Each trainable parameter once, with its full name and the module that it is in."""
    modules = dict(model.named_modules())
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            yield name, parameter, modules[name.rpartition(".")[0]]


def hidden_matrices(model: nn.Module) -> Iterator[tuple[str, nn.Parameter, bool]]:
    """Each trainable parameter, and whether it is a hidden matrix.

    That is a weight in two dimensions that is no embedding and neither in the model's first layer nor in its last,
    frozen layers included: what Jordan et al. (2024, https://kellerjordan.github.io/posts/muon/) train with Muon.
    """
    layers = [parameter for parameter in model.parameters() if parameter.ndim >= 2]
    ends = {id(layers[0]), id(layers[-1])} if layers else set()
    for name, parameter, module in trainable(model):
        yield name, parameter, is_matrix(parameter, module) and id(parameter) not in ends


def is_matrix(parameter: nn.Parameter, module: nn.Module) -> bool:
    """Whether this is a weight in two dimensions, embeddings aside."""
    return parameter.ndim == 2 and not _is_embedding(module)


def _is_embedding(module: nn.Module) -> bool:
    return isinstance(module, (nn.Embedding, nn.EmbeddingBag))


def _is_norm(module: nn.Module) -> bool:
    return "norm" in type(module).__name__.lower()  # those of torch, and the RMSNorms that every library has of its own


RULES: Mapping[str, Matches] = {
    "bias": lambda name, _parameter, _module: name.rpartition(".")[2] == "bias",
    "norm": lambda _name, _parameter, module: _is_norm(module),
    "bias_or_norm": lambda name, _parameter, module: name.rpartition(".")[2] == "bias" or _is_norm(module),
    "embedding": lambda _name, _parameter, module: _is_embedding(module),
    "vector": lambda _name, parameter, _module: parameter.ndim < 2,
    "matrix": lambda _name, parameter, module: is_matrix(parameter, module),
}


def _patterns(group: Mapping[str, Any]) -> list[str]:
    match = group["match"]
    return [match] if isinstance(match, str) else [str(pattern) for pattern in match]


def _check_patterns(group: Mapping[str, Any], model: nn.Module, *, where: str) -> None:
    """Each pattern matches something by itself, so that a mistyped one in a list is not passed over."""
    match = group["match"]
    for pattern in match if isinstance(match, list) else [match]:
        if not isinstance(pattern, str):
            raise UsageError(f"{where}.match={match!r}: expected patterns of names, as in '*.bias'.")
        if not any(_matches(pattern, found) for found in trainable(model)):
            raise UsageError(f"{where}: {pattern} matches no trainable parameter.\n{_choices(model)}")


def _choices(model: nn.Module) -> str:
    return f"Rules: {', '.join(RULES)}. Parameters: {', '.join(name for name, _, _ in trainable(model))}."


def _matches(pattern: str, found: tuple[str, nn.Parameter, nn.Module]) -> bool:
    name, parameter, module = found
    rule = RULES.get(pattern)
    return fnmatch.fnmatchcase(name, pattern) if rule is None else rule(name, parameter, module)


def _title(group: Mapping[str, Any]) -> str:
    return ", ".join(_patterns(group))


def _first_match(
    groups: Sequence[Mapping[str, Any]], *, name: str, parameter: nn.Parameter, module: nn.Module
) -> int | None:
    for index, group in enumerate(groups):
        if any(_matches(pattern, (name, parameter, module)) for pattern in _patterns(group)):
            return index
    return None


def _is_times_lr(decay: str) -> bool:
    return decay.startswith("times lr") and not decay.startswith("times lr squared")


def _own(given: Mapping[str, Any], optimizer: Bound, *, where: str) -> dict[str, Any]:
    """A group's own values, with factors multiplied out."""
    hyperparameters = optimizer.hyperparameters
    own: dict[str, Any] = {}
    for key, value in given.items():
        name = key.removesuffix("_factor") if key in FACTORS else key
        if name not in hyperparameters:
            raise unknown("key", key, (*hyperparameters, *FACTORS), where=f"for {optimizer.name}", prefix=f"{where}.")
        if name in own:
            raise UsageError(f"{where}: {name} is given twice, as a value and as a factor.")
        base = hyperparameters[name]
        if _is_number(base) and not _is_number(value):
            raise UsageError(f"{where}.{key}={value!r}: expected a number.")
        own[name] = tuple(value) if isinstance(value, list) else value
        if key in FACTORS:
            if not _is_number(base):
                raise UsageError(f"{where}.{key}: the optimizer's {name} is {base}, no number.")
            own[name] = value * base
        elif name == "lr":
            own[name] = value * optimizer.lr_factor
        if name == "lr" and own[name] < 0.0:
            raise UsageError(f"{where}.{key}={value}: a rate is not below 0.")
    return own


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
