"""One run of a suite, as it is kept and shown."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from optbench.regress import findings, readings
from optbench.regress.findings import Answer, Finding
from optbench.regress.readings import Readings

SCHEMA = 1

BaselineState = Literal["there", "missing", "corrupt", "other machine", "other suite"]


@dataclass(frozen=True, kw_only=True)
class Against:
    """What a night was held against.

    Attributes:
        kind: `stored` is an accepted baseline; of the others the environment was made and measured beside this one.
        name: in words: the day and the reason of a stored one, else the commit, the pins or the file.
        state: of a stored baseline; `there` for the others.
        note: what is wrong with it and what to do, in words; empty where nothing is.
    """

    kind: Literal["stored", "git", "pins", "wheel"]
    name: str
    state: BaselineState = "there"
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Night:
    """One run of a suite.

    Attributes:
        suite: its name.
        digest: of the suite's file.
        started: when, UTC, as `2026-11-28T03:17:00Z`: a label.
        seconds: that it took.
        machine: its fingerprint; nights of one machine alone make a history.
        machine_words: what the machine is, in words.
        load: of the machine, over the last minute, at the beginning and at the end.
        against: what it was held against.
        readings: of this side.
        findings: of every metric.
        exit_code: of the command.
    """

    suite: str
    digest: str
    started: str
    seconds: float
    machine: str
    machine_words: str
    load: tuple[float, float]
    against: Against
    readings: Readings
    findings: Sequence[Finding]
    exit_code: int

    def count(self, answer: Answer) -> int:
        """How many metrics have this answer."""
        return sum(finding.answer is answer for finding in self.findings)


def as_json(night: Night) -> dict[str, Any]:
    """The night in JSON's terms."""
    return {
        "schema": SCHEMA,
        **{key: value for key, value in vars(night).items() if key not in ("against", "readings", "findings")},
        "against": dict(vars(night.against)),
        "counts": {answer.value: night.count(answer) for answer in Answer},
        "findings": [findings.as_json(finding) for finding in findings.worst_first(night.findings)],
        "readings": readings.as_json(night.readings),
    }


def from_json(record: Mapping[str, Any]) -> Night:
    """What `as_json` made of it.

    Raises:
        KeyError, TypeError, ValueError: it is no such record, or a later optbench wrote it.
    """
    if record["schema"] > SCHEMA:
        raise ValueError(f"schema {record['schema']}: a later optbench wrote this.")
    own = {key: value for key, value in record.items() if key not in ("schema", "counts")}
    return Night(
        **{
            **own,
            "load": (float(own["load"][0]), float(own["load"][1])),
            "against": Against(**own["against"]),
            "readings": readings.from_json(own["readings"]),
            "findings": [findings.from_json(finding) for finding in own["findings"]],
        }
    )
