"""Reproductions made by hand: a paper's file in a few lines, and trials whose figures are chosen."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from optbench.papers.outcome import Outcome, SaidOutcome, outcome
from optbench.papers.paper import Measure
from optbench.papers.reading import read

STEPS = [0, 25, 50, 75, 100]
START = 10.0  # the loss before training

PAPER = """
name: rates
title: Rates of three optimizers
claim: Lion needs a tenth of Adam's rate.
source: {authors: Roe et al., title: Of rates, year: 2019, url: "https://example.org/rates", where: table 2}
gaps: [It does not say how weights begin.]
cost: {minutes: 3.0, quick_minutes: 0.5, machine: two cores}
tables:
  - name: final
    title: Test loss after 100 steps
    because: Two spreads of the source.
    digits: 4
    figure: test_loss
    where: {sweep.name: rates}
    tolerance: 0.05
    rows:
      SGD: {where: {optimizer.name: sgd}}
      Adam: {where: {optimizer.name: adam}}
      Lion: {where: {optimizer.name: lion}}
    columns:
      0.01: {where: {optimizer.lr: 0.01}}
      0.1: {where: {optimizer.lr: 0.1}}
      1.0: {where: {optimizer.lr: 1.0}}
    published:
      SGD: {0.01: [0.5, 0.02], 0.1: 0.4, 1.0: {value: .nan, diverges: true}}
      Adam: {0.01: 0.3, 0.1: 0.25, 1.0: 0.9}
      Lion: {0.01: {value: 0.2, at_most: 0.4}, 0.1: null, 1.0: 0.8}
  - name: sizes
    title: State over parameters
    rows:
      Adam: {arguments: {optimizer: adam}}
      Lion: {arguments: {optimizer: lion}}
    compute: state
    tolerance: 0.0
    published: {Adam: 2.0, Lion: 2.0}
claims:
  - {id: C01, text: Adam is below 0.4, source: often said, figure: test_loss, at_most: 0.4,
     where: {sweep.name: rates, optimizer.name: adam, optimizer.lr: 0.1}}
  - {id: C02, text: SGD is at 0.1, source: a talk, figure: test_loss, value: 0.1, tolerance: 0.01,
     where: {sweep.name: rates, optimizer.name: sgd, optimizer.lr: 0.01}}
  - {id: C03, text: Adam is at 0.28, source: a post, figure: test_loss, at_most: 0.28,
     where: {sweep.name: rates, optimizer.name: adam, optimizer.lr: 0.1}}
  - {id: C04, text: Muon is at 0.1, source: a post, figure: test_loss, where: {optimizer.name: muon}, at_most: 0.1}
figures:
  - {name: by_rate, title: Loss by rate, kind: lines, table: final, x: learning rate, y: test loss, log_x: true}
  - {name: course, title: Loss by step, kind: curves, table: final, x: step, y: test_loss,
     points: {SGD: [[50, 3.0], [100, 0.5]]}}
  - {name: pairs, title: Rate and decay, kind: heat_map, x: optimizer.lr, y: optimizer.weight_decay, z: test_loss,
     by: optimizer.name, where: {sweep.name: pairs}, slope: {adam: -1.0}}
"""
SAID = [
    SaidOutcome(id="C10", text="d never falls", source="its authors", measured="falls in 0 of 3", verdict="holds"),
    SaidOutcome(id="C11", text="d is the rate", source="its authors", measured="3 times", verdict="does not hold"),
    SaidOutcome(id="C12", text="d is large", source="its authors", measured="-", verdict="not measured"),
]
STATES = {"adam": 2.0, "lion": 1.0}
# By optimizer and rate; a word is the status of a trial that failed.
LOSSES: Mapping[tuple[str, float], Sequence[float | str]] = {
    ("sgd", 0.01): (0.49, 0.5, 0.51),  # within 0.05 of 0.5
    ("sgd", 0.1): (0.5, 0.51, 0.52),  # well above 0.4
    ("sgd", 1.0): ("diverged", "diverged", "diverged"),  # as published
    ("adam", 0.01): (0.305,),  # one seed
    ("adam", 0.1): (0.22, 0.28, 0.31),  # on both sides of 0.3
    ("adam", 1.0): (0.9, "diverged", 0.9),
    ("lion", 0.01): (0.21, 0.22, 0.2),  # a bound
    ("lion", 0.1): (0.3, 0.32, 0.34),  # nothing published
}


def record(config: Mapping[str, Any], loss: float | str, *, seed: int) -> dict[str, Any]:
    """As a store has it: a loss that falls from `START` to its end, or half way until it fails."""
    end = None if isinstance(loss, str) else loss
    parts = [0.0, 0.5, 0.8, 0.95, 1.0] if end is not None else [0.0, -0.5]
    return {
        "config": {**config, "seed": seed},
        "status": "completed" if end is not None else loss,
        "summary": {"num_steps": 100, "test_loss": end},
        "curve": {
            "step": STEPS[: len(parts)],
            "seconds": [0.01 * step for step in STEPS[: len(parts)]],
            "gradient_evaluations": STEPS[: len(parts)],
            "test_loss": [START + part * ((end or 0.0) - START) for part in parts],
        },
        "environment": {"device": "Abacus 3", "packages": {"torch": "2.10.0"}},
    }


def trials(losses: Mapping[tuple[str, float], Sequence[float | str]] = LOSSES) -> list[dict[str, Any]]:
    """Those of the table, a seed for each loss."""
    return [
        record(
            {"optimizer": {"name": name, "lr": lr, "weight_decay": 0.0}, "sweep": {"name": "rates"}}, loss, seed=seed
        )
        for (name, lr), own in losses.items()
        for seed, loss in enumerate(own)
    ]


RATES = (0.001, 0.01, 0.1, 1.0)
DECAYS = (0.0001, 0.001, 0.01, 0.1)


def pairs(names: Sequence[str] = ("adam", "lion")) -> list[dict[str, Any]]:
    """Two seeds at each pair: the first has its best along a falling diagonal, the second in a row."""
    found = []
    for name in names:
        for across, lr in enumerate(RATES):
            for upwards, decay in enumerate(DECAYS):
                best = len(DECAYS) - 1 - across if name == names[0] else 2
                for seed in range(2):
                    has_failed = (across, upwards) == (3, 3) or ((across, upwards) == (3, 2) and seed == 1)
                    loss = "diverged" if has_failed else 0.2 + 0.1 * abs(upwards - best) + 0.02 * across + 0.001 * seed
                    optimizer = {"name": name, "lr": lr, "weight_decay": decay}
                    found.append(record({"optimizer": optimizer, "sweep": {"name": "pairs"}}, loss, seed=seed))
    return found


def made(
    text: str = PAPER,
    records: Sequence[Mapping[str, Any]] | None = None,
    *,
    said: Sequence[SaidOutcome] = SAID,
    **options: Any,
) -> Outcome:
    """What the paper's file and these trials come to."""
    own = [*trials(), *pairs()] if records is None else records

    def compute(measure: Measure) -> float:
        return STATES.get(str(measure.arguments.get("optimizer")), math.nan)

    return outcome(read(text, where="paper"), own, compute=compute, said=said, **options)


def quoted(text: str) -> str:
    """As YAML reads it whatever is in it."""
    return json.dumps(text)
