"""Parity: two implementations of an optimizer led by the same gradients, step by step."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol, Self

import torch
from rich import box
from rich.markup import escape
from rich.table import Table
from torch import Tensor, nn

from optbench.component import Capability, Component, OptimizerComponent, component, optimizer_component
from optbench.components import build_schedule
from optbench.console import console
from optbench.errors import UsageError, unknown
from optbench.optim.build import build
from optbench.optim.rules import RULES, Rule, State
from optbench.schedule import Schedule
from optbench.settings import distinctions
from optbench.train import rate, set_rates

NUM_STEPS = 200
CHECKPOINTS = (1, 2, 5, 10, 20, 50, 100, 200)
TOLERANCE = 1e-12

# Arguments that choose how an optimizer computes, and not what.
IMPLEMENTATION_CHOICES = frozenset({"foreach", "fused", "fsdp_in_use", "is_paged", "use_triton"})
NEEDS_MORE_THAN_GRADIENTS = (Capability.CLOSURE, Capability.EXTRA_PASS, Capability.CREATE_GRAPH)
PARTS = ("optimizer", "schedule")


@dataclass(frozen=True, kw_only=True)
class Tape:
    """Gradients of a real training, to be given to any optimizer, wherever it has gone.

    Attributes:
        params: where the training started.
        grads: of each step.
    """

    params: tuple[Tensor, ...]
    grads: tuple[tuple[Tensor, ...], ...]

    def model(self) -> nn.Module:
        """A model where the training started."""
        model = _mlp(seed=0)
        with torch.no_grad():
            for parameter, start in zip(model.parameters(), self.params, strict=True):
                parameter.copy_(start)
        return model


@cache
def record(*, seed: int = 0) -> Tape:
    """The tape of 200 steps of plain SGD in float64, on scikit-learn's digits, 16 at a time.

    The model is an MLP 64-100-100-10 whose last layer alone has a bias: four tensors, matrices and a vector.
    """
    from sklearn.datasets import load_digits

    images, labels = (torch.as_tensor(part) for part in load_digits(return_X_y=True))
    order = torch.Generator().manual_seed(seed)
    model = _mlp(seed=seed)
    params = list(model.parameters())
    start = tuple(parameter.detach().clone() for parameter in params)
    optimizer = torch.optim.SGD(params, lr=0.5)  # fast, so that gradients soon disagree and Prodigy's rate settles
    grads = []
    for _ in range(NUM_STEPS):
        batch = torch.randint(len(labels), (16,), generator=order)
        loss = nn.functional.cross_entropy(model(images[batch] / 16), labels[batch])
        grads.append(torch.autograd.grad(loss, params))
        for parameter, grad in zip(params, grads[-1], strict=True):
            parameter.grad = grad
        optimizer.step()
    return Tape(params=start, grads=tuple(grads))


class Implementation(Protocol):
    """Something that gradients lead along a path: all parameters in one vector, after each step of the tape."""

    @property
    def title(self) -> str: ...  # noqa: D102

    def path(self, tape: Tape) -> Iterator[Tensor]: ...  # noqa: D102


@dataclass(frozen=True, kw_only=True)
class OfLibrary:
    """An optimizer as its YAML declares it, under a schedule."""

    optimizer: OptimizerComponent
    schedule: Schedule

    @property
    def title(self) -> str:
        """Its name and its class."""
        return f"{self.optimizer.name} ({self.optimizer.target})"

    def path(self, tape: Tape) -> Iterator[Tensor]:
        """All parameters in one vector, after each step of the tape.

        Raises:
            UsageError: it needs more than gradients, or fails in float64.
        """
        for capability in NEEDS_MORE_THAN_GRADIENTS:
            if capability in self.optimizer.capabilities:
                raise UsageError(f"{self.optimizer.name} needs more than recorded gradients ({capability}): no parity.")
        model = tape.model()
        params = tuple(model.parameters())
        optimizer = build(self.optimizer, model)
        if Capability.TRAIN_EVAL in self.optimizer.capabilities:
            optimizer.train()  # type: ignore[attr-defined]
        peak_rates = [rate(group) for group in optimizer.param_groups]
        for step, grads in enumerate(tape.grads):
            set_rates(optimizer, peak_rates, factor=self.schedule(step / len(tape.grads)))
            for parameter, grad in zip(params, grads, strict=True):
                parameter.grad = grad.clone()  # some optimizers change it
            try:
                optimizer.step()
            except Exception as error:  # each library has its own
                raise UsageError(f"{self.title} does not step in float64 ({type(error).__name__}: {error}).") from error
            yield _vector(params)


@dataclass(frozen=True, kw_only=True)
class OfRule:
    """A rule with its hyperparameters, under a schedule; `lr` is the peak rate, None where the rule chooses it."""

    rule: Rule
    hyperparameters: Mapping[str, Any]
    schedule: Schedule

    @property
    def title(self) -> str:
        """The name of the rule."""
        return f"rule {self.rule.name}"

    def path(self, tape: Tape) -> Iterator[Tensor]:
        """All parameters in one vector, after each step of the tape."""
        params = tape.params
        state: State = {}
        lr = self.hyperparameters.get("lr")
        for step, grads in enumerate(tape.grads):
            now = None if lr is None else lr * self.schedule(step / len(tape.grads))
            params, state = self.rule({**self.hyperparameters, "lr": now, "initial_lr": lr}, state, params, grads)
            yield _vector(params)


@dataclass(frozen=True, kw_only=True)
class Difference:
    """How far apart two implementations are after a step.

    Attributes:
        step: from 1.
        largest: of any parameter.
        relative: to the way that the first of them has gone, in the parameter that went farthest.
    """

    step: int
    largest: float
    relative: float


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two implementations over one tape.

    Attributes:
        titles: of the two.
        differences: at the checkpoints.
        parts_at: the first step after which they differ by more than 1e-12 of the way gone. None: never.
    """

    titles: tuple[str, str]
    differences: tuple[Difference, ...]
    parts_at: int | None


@dataclass(frozen=True, kw_only=True)
class Departure:
    """An entry of `departs:`: the first step at which an optimizer parts from its `rule` or from another, and why."""

    source: str
    step: int
    because: str


@dataclass(frozen=True, kw_only=True)
class Declared:
    """An optimizer as a composed config declares it, with what that says of its parity."""

    optimizer: OptimizerComponent
    schedule: Schedule
    rule: str | None
    departs: tuple[Departure, ...]

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Take it from a config, whatever that says of clipping and parameter groups; a UsageError if it is wrong."""
        optimizer = config["optimizer"]
        return cls(
            optimizer=optimizer_component(optimizer),
            schedule=build_schedule(component(config["schedule"], group="schedule")),
            rule=optimizer.get("rule"),
            departs=tuple(
                Departure(source=entry["from"], step=entry["step"], because=entry["because"])
                for entry in optimizer.get("departs") or ()
            ),
        )

    @property
    def of_library(self) -> OfLibrary:
        """The optimizer itself."""
        return OfLibrary(optimizer=self.optimizer, schedule=self.schedule)

    @property
    def of_rule(self) -> OfRule:
        """Its rule, with its hyperparameters.

        Raises:
            UsageError: it has no rule, or the rule does not know a hyperparameter.
        """
        name = self.optimizer.name
        if self.rule is None:
            raise UsageError(
                f"{name} has no rule to compare it with (`rule:` in its YAML).\n"
                f"Compare it with another optimizer: optbench parity optimizer={name},adamw"
            )
        if self.rule not in RULES:
            raise unknown("rule", self.rule, RULES, where=f"of {name}")
        rule = RULES[self.rule]
        return OfRule(rule=rule, hyperparameters=hyperparameters(rule, self.optimizer), schedule=self.schedule)

    def departure(self, source: str) -> Departure | None:
        """What the YAML documents, if anything."""
        return next((entry for entry in self.departs if entry.source == source), None)


def hyperparameters(rule: Rule, optimizer: Component) -> dict[str, Any]:
    """The optimizer's arguments as the rule reads them.

    Raises:
        UsageError: one that is not off is unknown to the rule, or one that it needs is not given.
    """
    known = rule.hyperparameters - {"initial_lr"}
    for key, value in optimizer.arguments.items():
        if value and key not in known | IMPLEMENTATION_CHOICES:
            raise UsageError(
                f"optimizer.{key}={value}: rule {rule.name} does not know this hyperparameter.\n"
                f"It knows: {', '.join(sorted(known))}."
            )
    if missing := sorted(rule.required - {"initial_lr"} - optimizer.arguments.keys()):
        raise UsageError(f"rule {rule.name} needs optimizer.{missing[0]}, which {optimizer.name} does not give.")
    return {key: tuple(value) if isinstance(value, list) else value for key, value in optimizer.arguments.items()}


def compare(first: Implementation, second: Implementation, tape: Tape) -> Comparison:
    """Lead both along the tape.

    A path of tiny steps is no better known than the parameters are rounded: an ulp of them for each step, relative to
    the way gone by then, is no difference, then or later (Prodigy's rate remembers its first steps of 0.000001).
    """
    start = _vector(tape.params)
    parts_at = None
    differences = []
    rounding = 0.0
    for step, (one, other) in enumerate(zip(first.path(tape), second.path(tape), strict=True), start=1):
        largest = float((one - other).abs().max())
        way = float((one - start).abs().max())
        relative = largest / way if way else largest and math.inf
        if way:
            rounding = max(rounding, step * torch.finfo(one.dtype).eps * float(one.abs().max()) / way)
        if parts_at is None and not relative <= TOLERANCE + rounding:
            parts_at = step
        if step in CHECKPOINTS:
            differences.append(Difference(step=step, largest=largest, relative=relative))
    return Comparison(titles=(first.title, second.title), differences=tuple(differences), parts_at=parts_at)


def parity(configs: Sequence[Mapping[str, Any]]) -> int:
    """Compare one optimizer with its rule, or the first of several with each other one, and print a table of each.

    Args:
        configs: composed ones; those with the same optimizer and schedule count as one.

    Returns:
        The command's exit code: 0 where all are equal or part where that is documented, else 1.

    Raises:
        UsageError: there is nothing to compare with, or an optimizer cannot be led by gradients alone.
    """
    different: list[Mapping[str, Any]] = []
    for config in configs:
        if not any(all(config[part] == other[part] for part in PARTS) for other in different):
            different.append(config)
    first, *others = [Declared.from_config(config) for config in different]
    name = first.optimizer.name
    pairs: list[tuple[Implementation, Departure | None]] = [
        (other.of_library, first.departure(other.optimizer.name) or other.departure(name)) for other in others
    ]
    code = 0
    for index, (other, documented) in enumerate(pairs or [(first.of_rule, first.departure("rule"))], start=1):
        comparison = compare(first.of_library, other, record())
        _show(comparison, documented, settings=distinctions([different[0], *different[index : index + 1]], PARTS))
        if comparison.parts_at is not None and (documented is None or documented.step != comparison.parts_at):
            code = 1
    return code


def verdict(comparison: Comparison, documented: Departure | None) -> str:
    """The outcome in words."""
    if comparison.parts_at is None:
        return f"equal to {TOLERANCE:.0e} for {NUM_STEPS} steps"
    parts = f"part at step {comparison.parts_at}"
    if documented is None:
        return f"{parts}, and no `departs:` says why"
    if documented.step != comparison.parts_at:
        return f"{parts}, where step {documented.step} is documented: {documented.because}"
    return f"{parts}, as documented: {documented.because}"


def _show(comparison: Comparison, documented: Departure | None, *, settings: Sequence[str]) -> None:
    table = Table(box=box.SIMPLE_HEAD)
    for name in ("step", "max difference", "relative difference"):
        table.add_column(name, justify="right")
    for difference in comparison.differences:
        table.add_row(str(difference.step), f"{difference.largest:.1e}", f"{difference.relative:.1e}")
    page = console()
    sides = (f"{title} {setting}".rstrip() for title, setting in zip(comparison.titles, (*settings, ""), strict=False))
    page.print(escape(" and ".join(sides)), soft_wrap=True)
    page.print(table)
    page.print(escape(verdict(comparison, documented)), soft_wrap=True)


def _mlp(*, seed: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        first, second = (nn.Linear(inputs, 100, bias=False) for inputs in (64, 100))
        return nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), nn.Linear(100, 10)).double()


def _vector(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([tensor.detach().flatten() for tensor in tensors])
