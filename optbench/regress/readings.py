"""What one side of a comparison measured: plain data, as baselines and nights keep it."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

# Figures of another version are of another instrument or kernel: they are no measure of these.
VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Final:
    """How one trial ended.

    Attributes:
        status: as the store has it.
        loss: at its end; None where there is none that is finite.
    """

    status: str
    loss: float | None

    @property
    def succeeded(self) -> bool:
        """Whether the trial came to its end."""
        return self.status in ("completed", "reached_target")


@dataclass(frozen=True, kw_only=True)
class Sample:
    """What one process measured of one step, in seconds, beside a kernel that no optimizer has a part in.

    Attributes:
        best: the quickest step.
        p10: a tenth of the steps were quicker.
        median: half of them.
        kernel_best: the quickest run of the kernel, each in turn with a step.
        kernel_p10: a tenth of them.
        kernel_median: half of them.
        num_steps: that were timed.
    """

    best: float
    p10: float
    median: float
    kernel_best: float
    kernel_p10: float
    kernel_median: float
    num_steps: int


@dataclass(frozen=True, kw_only=True)
class Readings:
    """All that one side measured. Each mapping goes by the subject, such as `adamw foreach` or `digits_mlp adamw`.

    Attributes:
        environment: where and with what, as a trial's result has it; empty where nothing could be asked.
        asked: what each subject is, as a digest of its overrides: figures of different questions are not compared.
        exact: whole numbers by their names, such as `state_bytes`; where one cannot be had, it is left out.
        finals: how each trial ended, by its seed.
        samples: of the time of a step, one for each process.
        failures: why a subject has no figures, a sentence each.
    """

    environment: Mapping[str, Any] = field(default_factory=dict)
    asked: Mapping[str, str] = field(default_factory=dict)
    exact: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    finals: Mapping[str, Mapping[str, Final]] = field(default_factory=dict)
    samples: Mapping[str, Sequence[Sample]] = field(default_factory=dict)
    failures: Mapping[str, str] = field(default_factory=dict)

    @property
    def bits_key(self) -> str:
        """What the last bits of a loss depend on besides the code: two sides that differ in it differ in those bits."""
        packages = self.environment.get("packages") or {}
        names = ("device", "num_threads", "cpu_capability")
        found = [f"{name}={self.environment.get(name)}" for name in names]
        return " ".join([*found, f"torch={packages.get('torch')}"])


def as_json(readings: Readings) -> dict[str, Any]:
    """The readings in JSON's terms."""
    return asdict(readings)


def from_json(record: Mapping[str, Any]) -> Readings:
    """What `as_json` made of them.

    Raises:
        KeyError: something is missing.
        AttributeError, TypeError, ValueError: something is of another kind.
    """
    return Readings(
        environment=dict(record["environment"]),
        asked={subject: str(digest) for subject, digest in record["asked"].items()},
        exact={
            subject: {name: int(count) for name, count in figures.items()}
            for subject, figures in record["exact"].items()
        },
        finals={
            subject: {seed: _final(final) for seed, final in finals.items()}
            for subject, finals in record["finals"].items()
        },
        samples={
            subject: [Sample(**{key: _number(value) for key, value in one.items()}) for one in samples]
            for subject, samples in record["samples"].items()
        },
        failures={subject: str(reason) for subject, reason in record["failures"].items()},
    )


def _final(record: Mapping[str, Any]) -> Final:
    loss = record["loss"]
    return Final(status=str(record["status"]), loss=None if loss is None else float(_number(loss)))


def _number(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{value!r} is no number")
    return value
