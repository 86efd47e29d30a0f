"""Nights made by hand: findings whose answers are chosen, and a history whose figures are simulated."""

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from optbench.regress.findings import Answer, Finding
from optbench.regress.night import Against, Night
from optbench.regress.readings import Final, Readings, Sample

FIRST = datetime(2026, 10, 1, 3, 17, tzinfo=UTC)
OPTIMIZERS = (
    *("adamw", "adam", "sgd", "sgd_momentum", "lion", "adafactor", "muon", "prodigy", "galore", "apollo"),
    *("came", "schedule_free_adamw", "rmsprop", "adagrad", "nadam", "radam", "adamax", "sophia", "ademamix", "soap"),
)
SUBJECTS = tuple(f"{name} {way}" for name in OPTIMIZERS for way in ("foreach", "for loop", "fused"))
STORED = Against(kind="stored", name="2026-11-20: the pins were raised")
ENVIRONMENT = {
    "python": "3.11.7",
    "host": "secret-host",
    "device": "Abacus 3",
    "device_type": "cpu",
    "num_threads": 2,
    "commit": "0123456789abcdef",
    "packages": {"torch": "2.10.0", "numpy": "2.3.1"},
}


def started(number: int) -> str:
    """The label of a night, from 1."""
    return (FIRST + timedelta(days=number - 1)).strftime("%Y-%m-%dT%H:%M:%SZ")


def sample(step: float = 2e-3, kernel: float = 1e-4) -> Sample:
    """A process whose usual step takes a tenth longer than its quickest."""
    return Sample(
        best=step,
        p10=1.02 * step,
        median=1.1 * step,
        kernel_best=kernel,
        kernel_p10=1.02 * kernel,
        kernel_median=1.1 * kernel,
        num_steps=200,
    )


def finding(answer: Answer = Answer.PASS, **changes: Any) -> Finding:
    """Of the time of a step, unless it is said otherwise."""
    given: dict[str, Any] = {
        "kind": "time",
        "subject": "adamw foreach",
        "figure": "step time",
        "answer": answer,
        "old": 20.0,
        "new": 22.0,
        "ratio": 1.1,
        "low": 1.06,
        "high": 1.14,
        "control": 1.004,
        "old_samples": (19.9, 20.0, 20.1),
        "new_samples": (21.9, 22.0, 22.1),
    }
    return Finding(**{**given, **changes})


def exact(answer: Answer = Answer.PASS, **changes: Any) -> Finding:
    """Of state bytes, the same as before unless it is said otherwise."""
    given: dict[str, Any] = {"kind": "exact", "figure": "state bytes", "old": 40704.0, "new": 40704.0, "ratio": 1.0}
    nothing = {"low": None, "high": None, "control": None, "old_samples": (), "new_samples": ()}
    return finding(answer, **{**nothing, **given, **changes})


def every_answer() -> list[Finding]:
    """One metric of each answer, two of which are worse."""
    nothing = {"old": None, "new": None, "ratio": None}
    return [
        finding(),
        finding(
            Answer.FAIL,
            subject="lion fused",
            new=24.0,
            ratio=1.2,
            low=1.15,
            high=1.25,
            note="slower in 2 rounds: 1.190, 1.200",
        ),
        exact(Answer.FAIL, new=40712.0, ratio=40712 / 40704, note="changed by +8"),
        exact(Answer.BROKEN, **{**nothing, "old": 40704.0}, subject="soap", note="RuntimeError: no such method"),
        exact(Answer.UNCOMPARED, subject="radam", **{**nothing, "new": 512.0}, note="the other side has no figure"),
        finding(
            Answer.UNKNOWN,
            subject="muon foreach",
            control=1.3,
            note="too noisy: its ratio to itself was 1.300",
        ),
        exact(Answer.CHANGED, figure="final loss bits", **nothing, note="changed with 1 of 3 seeds"),
        finding(Answer.IMPROVED, subject="adam fused", new=18.0, ratio=0.9, low=0.88, high=0.92),
        exact(Answer.NEW, subject="came", **{**nothing, "new": 512.0}),
        exact(Answer.MISSING, subject="adagrad", **{**nothing, "old": 1024.0}, note="the suite no longer asks for it"),
    ]


def night(findings: Sequence[Finding] | None = None, **changes: Any) -> Night:
    """With a metric of each answer, unless it is said otherwise."""
    given: dict[str, Any] = {
        "suite": "quick",
        "digest": "d1g357",
        "started": started(60),
        "seconds": 754.2,
        "machine": "f1n6e4",
        "machine_words": "Abacus 3, 2 cores",
        "load": (0.31, 1.2),
        "against": STORED,
        "readings": Readings(environment=ENVIRONMENT),
        "findings": every_answer() if findings is None else findings,
        "exit_code": 1,
    }
    return Night(**{**given, **changes})


def simulated(
    num_nights: int = 60,
    *,
    subjects: Sequence[str] = SUBJECTS,
    noise: float = 0.02,
    steps: Mapping[str, tuple[int, float]] | None = None,
    bytes_from: Mapping[str, tuple[int, int]] | None = None,
    losses_from: Mapping[str, tuple[int, float]] | None = None,
    diverged: Mapping[str, int] | None = None,
) -> list[Night]:
    """Nights of a suite: times and state bytes of all subjects, and losses of a third of them over three seeds.

    Args:
        num_nights: the earliest first.
        subjects: that are measured.
        noise: the coefficient of variation of times, from night to night.
        steps: by the subject, from which night on its time is how many times what it was.
        bytes_from: the same of state bytes, how many more.
        losses_from: the same of losses.
        diverged: by the subject, in which night one of its seeds did.
    """
    random = np.random.default_rng(0)
    nights = []
    for number in range(1, num_nights + 1):
        finals, samples, sizes = {}, {}, {}
        for place, subject in enumerate(subjects):
            kernel = 1e-4 * math.exp(0.1 * random.standard_normal())
            since, factor = (steps or {}).get(subject, (num_nights + 1, 1.0))
            true = (5.0 + place) * (factor if number >= since else 1.0)
            step = true * math.exp(noise * random.standard_normal())
            samples[subject] = [sample(step * kernel, kernel)] * 3
            since, more = (bytes_from or {}).get(subject, (num_nights + 1, 0))
            sizes[subject] = {"state_bytes": 4096 * (place % 4) + (more if number >= since else 0)}
            if place % 3 == 0:
                since, factor = (losses_from or {}).get(subject, (num_nights + 1, 1.0))
                losses = {str(seed): 0.1 + 0.01 * place + 0.001 * seed for seed in range(3)}
                finals[subject] = {
                    seed: Final(status="completed", loss=loss * (factor if number >= since else 1.0))
                    for seed, loss in losses.items()
                }
                if (diverged or {}).get(subject) == number:
                    finals[subject]["2"] = Final(status="diverged", loss=None)
        readings = Readings(
            environment=ENVIRONMENT,
            asked=dict.fromkeys(subjects, "same"),
            exact=sizes,
            finals=finals,
            samples=samples,
        )
        nights.append(night(passing(readings), started=started(number), readings=readings, exit_code=0))
    return nights


def passing(readings: Readings) -> list[Finding]:
    """That nothing of these readings changed."""
    found = [
        exact(subject=subject, figure=name.replace("_", " "), old=value, new=value, ratio=1.0 if value else None)
        for subject, figures in readings.exact.items()
        for name, value in figures.items()
    ]
    for subject, finals in readings.finals.items():
        losses = tuple(final.loss for final in finals.values())
        mean = sum(loss or 0.0 for loss in losses) / len(losses)
        given = {"kind": "loss", "figure": "final loss", "old": mean, "new": mean, "old_samples": losses}
        found.append(exact(subject=subject, **given, new_samples=losses))
    for subject, samples in readings.samples.items():
        own = tuple(one.best / one.kernel_best for one in samples)
        given = {"old": own[0], "new": own[0], "ratio": 1.0, "low": 0.98, "high": 1.02, "control": 1.0}
        found.append(finding(subject=subject, **given, old_samples=own, new_samples=own))
    return found
