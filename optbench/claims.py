"""What others say about the memory of optimizers, beside what is measured here."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import pandas as pd

from optbench.cost import Cost
from optbench.parsing import parse, parse_list, parse_mapping
from optbench.settings import distinctions

Figure = Literal["state_over_parameters", "parameters_and_state", "parameters_state_and_gradients"]
FIGURES: Mapping[Figure, str] = {
    "state_over_parameters": "state / parameters",
    "parameters_and_state": "(parameters + state) / parameters",
    "parameters_state_and_gradients": "(parameters + state + gradients) / parameters",
}


class Sizes(Protocol):
    """Bytes of what is trained and kept: a `Memory`, or what a trial found at its end."""

    @property
    def num_parameters(self) -> int: ...  # noqa: D102

    @property
    def parameter_bytes(self) -> int: ...  # noqa: D102

    @property
    def state_bytes(self) -> int: ...  # noqa: D102

    @property
    def gradient_bytes(self) -> int: ...  # noqa: D102


@dataclass(frozen=True, kw_only=True)
class TrialSizes:
    """Those of a trial, whose gradients are as large as its parameters."""

    num_parameters: int
    parameter_bytes: int
    state_bytes: int
    gradient_bytes: int


def sizes_of(record: Mapping[str, Any]) -> TrialSizes | None:
    """Of a stored trial; None where it ended before there was a state."""
    summary = record["summary"]
    if summary.get("state_bytes") is None or not summary.get("parameter_bytes"):
        return None
    return TrialSizes(
        num_parameters=summary["num_parameters"],
        parameter_bytes=summary["parameter_bytes"],
        state_bytes=summary["state_bytes"],
        gradient_bytes=summary["parameter_bytes"],
    )


def figure_of(sizes: Sizes, figure: str) -> float:
    """One of `FIGURES`, all of which are in parts of the parameters."""
    counted = {
        "state_over_parameters": sizes.state_bytes,
        "parameters_and_state": sizes.parameter_bytes + sizes.state_bytes,
        "parameters_state_and_gradients": sizes.parameter_bytes + sizes.state_bytes + sizes.gradient_bytes,
    }
    return counted[figure] / sizes.parameter_bytes


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A figure that somebody gives.

    Attributes:
        id: of the claim.
        text: in a few words.
        optimizer: of which it is said.
        figure: what of it.
        published: its value.
        tolerance: how far a measurement may be from it, in parts of it.
        source: who says so.
        min_parameters: the smallest model that it is said of; None says it of all.
    """

    id: str
    text: str
    optimizer: str
    figure: Figure
    published: float
    tolerance: float
    source: str
    min_parameters: int | None = None

    def measured(self, sizes: Sizes) -> float:
        """The same figure of a step."""
        return figure_of(sizes, self.figure)

    def verdict(self, sizes: Sizes) -> str:
        """Whether the measurement is within the tolerance, where the claim is about such a model at all."""
        if sizes.num_parameters < (self.min_parameters or 0):
            return "not said of so small a model"
        within = abs(self.measured(sizes) - self.published) <= self.tolerance * self.published
        return "holds" if within else "does not hold"


def claims(config: Any) -> list[Claim]:
    """The claims of an experiment that are about memory; those with `expected` are about trainings.

    Raises:
        UsageError: one lacks a key, or has one that no claim has.
    """
    return [
        parse(
            Claim,
            {"min_parameters": None, **parse_mapping(claim, where=f"claims[{number}]")},
            where=f"claims[{number}]",
        )
        for number, claim in enumerate(parse_list(config or [], where="claims"))
        if "expected" not in parse_mapping(claim, where=f"claims[{number}]")
    ]


def table(asked: Sequence[Claim], costs: Sequence[Cost]) -> pd.DataFrame:
    """Each claim with what was measured on each model, or that nothing was."""
    return pd.DataFrame([line for claim in asked for line in _lines(claim, costs)])


def _lines(claim: Claim, costs: Sequence[Cost]) -> list[dict[str, str]]:
    said = {"claim": claim.id, "optimizer": claim.optimizer, "says": claim.text, "figure": FIGURES[claim.figure]}
    own = [cost for cost in costs if cost.config["optimizer"]["name"] == claim.optimizer]
    where = distinctions([cost.config for cost in own], ("hardware",))
    found = [(cost.memory, words) for cost, words in zip(own, where, strict=True) if cost.memory is not None]
    lines = [
        {
            "measured": f"{claim.measured(memory):.4f}",
            "on": " ".join(filter(None, [f"{memory.num_parameters:,} parameters", words])),
            "verdict": claim.verdict(memory),
        }
        for memory, words in sorted(found, key=lambda pair: pair[0].num_parameters)
    ]
    missing = {"measured": "-", "on": "-", "verdict": "not measured"}
    return [{**said, "published": f"{claim.published:g}", **line} for line in lines or [missing]]
