"""What others say about the memory of optimizers, beside what is measured here."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

from optbench.cost import Cost, Memory
from optbench.parsing import parse, parse_list, parse_mapping
from optbench.settings import distinctions

Figure = Literal["state_over_parameters", "parameters_and_state", "parameters_state_and_gradients"]
FIGURES: Mapping[Figure, str] = {
    "state_over_parameters": "state / parameters",
    "parameters_and_state": "(parameters + state) / parameters",
    "parameters_state_and_gradients": "(parameters + state + gradients) / parameters",
}


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

    def measured(self, memory: Memory) -> float:
        """The same figure of a step."""
        state = memory.state_bytes / memory.parameter_bytes
        return {
            "state_over_parameters": state,
            "parameters_and_state": memory.times_parameters,
            "parameters_state_and_gradients": memory.times_parameters_with_gradients,
        }[self.figure]

    def verdict(self, memory: Memory) -> str:
        """Whether the measurement is within the tolerance, where the claim is about such a model at all."""
        if memory.num_parameters < (self.min_parameters or 0):
            return "not said of so small a model"
        within = abs(self.measured(memory) - self.published) <= self.tolerance * self.published
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
