"""What came of one metric: two figures, what lies between them, and an answer."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Literal

Kind = Literal["exact", "loss", "time"]


class Answer(StrEnum):
    """Of one metric, the worst first."""

    FAIL = "fail"
    """It is worse, beyond what noise can do."""
    BROKEN = "broken"
    """It could not be measured here, though the baseline has it."""
    UNCOMPARED = "uncompared"
    """The other side has no figure of it, or one of another question: nothing was held against anything."""
    UNKNOWN = "unknown"
    """There was too much noise to tell."""
    CHANGED = "changed"
    """It is another number, and no worse."""
    MISSING = "missing"
    """The baseline has it, and the suite no longer asks for it."""
    NEW = "new"
    """The baseline does not have it."""
    IMPROVED = "improved"
    """It is better, beyond what noise can do."""
    PASS = "pass"
    """It is the same, as far as can be told."""


WORST_FIRST = tuple(Answer)


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One metric of a comparison.

    Attributes:
        kind: the class of the metric, which decides how it is judged.
        subject: what it is of, such as `adamw foreach`.
        figure: which figure, in words: `state bytes`, `dispatched ops`, `predicted peak bytes`, `final loss bits`,
            `final loss`, `step time`.
        answer: what came of it.
        old: the baseline's figure; None where there is none.
        new: this side's figure.
        ratio: new over old; above 1 is worse.
        low: of the ratio's interval at 95 %, where there is one.
        high: the same.
        control: of times, the same code's ratio to itself, which shows the noise.
        old_samples: what `old` was made of: processes, or seeds.
        new_samples: the same of `new`.
        note: why the answer is what it is, a sentence; empty where it needs none.
        is_beside: of times, whether both sides ran beside each other: then they are seconds, else multiples of the
            calibration kernel.
    """

    kind: Kind
    subject: str
    figure: str
    answer: Answer
    old: float | None = None
    new: float | None = None
    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    control: float | None = None
    old_samples: Sequence[float | None] = ()
    new_samples: Sequence[float | None] = ()
    note: str = ""
    is_beside: bool = False

    @property
    def name(self) -> str:
        """Of the metric: the same every night."""
        return f"{self.figure} of {self.subject}"

    @property
    def badness(self) -> tuple[int, float]:
        """What the worst come first by: the answer, then how much worse."""
        return WORST_FIRST.index(self.answer), -(self.ratio if self.ratio is not None else 0.0)


def worst_first(findings: Sequence[Finding]) -> list[Finding]:
    """The findings, the worst first."""
    return sorted(findings, key=lambda finding: (finding.badness, finding.name))


def as_json(finding: Finding) -> dict[str, Any]:
    """The finding in JSON's terms, under its name."""
    return {"name": finding.name, **asdict(finding)}


def from_json(record: Mapping[str, Any]) -> Finding:
    """What `as_json` made of it."""
    own = {key: value for key, value in record.items() if key != "name"}
    return Finding(**{**own, "answer": Answer(own["answer"])})
