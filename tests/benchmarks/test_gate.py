"""How often the gate of step times alarms at nothing, and how often it catches a step that takes a fifth longer.

Both sides are this environment, in processes of their own. Nights, one after another, take a minute or two each:
`OPTBENCH_NUM_NIGHTS=20 pytest tests/benchmarks/test_gate.py -s`. What they measured goes to `OPTBENCH_NIGHTS_FOLDER`.
"""

import json
import os
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from optbench.composing import composing
from optbench.regress import measuring, timing
from optbench.regress.findings import Answer
from optbench.regress.measuring import Measuring
from optbench.regress.rounds import time_answer
from optbench.regress.sides import Side
from optbench.regress.suite import read

NUM_NIGHTS = int(os.environ.get("OPTBENCH_NUM_NIGHTS", "1"))
FAULTS = Path(__file__).parent.parent / "faults"
SUITE = """
name: gate
title: Steps of a few optimizers
cost: {minutes: null, machine: any}
steps:
  plain:
    - task=digits_mlp
    - optimizer=adamw,lion,adafactor,muon,adam8bit
    - hardware=cpu
  implementations: [task=digits_mlp, optimizer=adamw, "hardware.implementation=foreach,fused", hardware=cpu]
time: {num_pairs: 3, seconds: 0.2}
"""
SLOW = ("adamw", "adamw foreach", "adamw fused")


@pytest.mark.parametrize("fault", ["", "slow_step"], ids=["against itself", "a fifth slower"])
def test_the_gate_over_many_nights(fault: str, tmp_path: Path) -> None:
    suite = read(SUITE, where="gate.yaml")
    with composing() as composer:
        plan = measuring.compose(suite, lambda lines: composer.configs(lines, one_trial=False), folder=None)
    others = os.environ.get("PYTHONPATH", "")
    variables = {"PYTHONPATH": f"{FAULTS}{os.pathsep}{others}", "OPTBENCH_FAULTS": fault} if fault else {}
    here, there = Side(name="here", variables=variables), Side(name="there")
    alarms: list[list[str]] = []
    caught: list[list[str]] = []
    unknown: list[list[str]] = []
    loads = []
    for night in range(NUM_NIGHTS):
        loads.append(os.getloadavg()[0])
        timed = timing.take(Measuring(plan=plan, work=tmp_path), here=here, there=there, baseline=None)
        answers = {subject: time_answer(rounds) for subject, rounds in timed.rounds.items()}
        failed = [subject for subject, answer in answers.items() if answer is Answer.FAIL]
        slow = SLOW if fault else ()
        caught.append([subject for subject in failed if subject in slow])
        alarms.append([subject for subject in failed if subject not in slow])
        unknown.append(
            [
                subject
                for subject, answer in answers.items()
                if answer not in (Answer.FAIL, Answer.PASS, Answer.IMPROVED)
            ]
        )
        keep(timed, fault=fault, night=night)
        print(f"\nnight {night}, load {loads[-1]:.1f}: caught {caught[-1]}, alarms {alarms[-1]}, unknown {unknown[-1]}")
        sys.stdout.flush()
    num_alarms = sum(map(bool, alarms))
    print(
        f"\n{fault or 'against itself'}: {NUM_NIGHTS} nights at loads {min(loads):.1f} to {max(loads):.1f}: alarms in "
        f"{num_alarms}, unknown in {sum(map(bool, unknown))}; "
        + ", ".join(
            f"{subject} caught in {sum(subject in own for own in caught)}" for subject in (SLOW if fault else ())
        )
    )
    assert num_alarms <= NUM_NIGHTS // 20


def keep(timed: timing.Timed, *, fault: str, night: int) -> None:
    if folder := os.environ.get("OPTBENCH_NIGHTS_FOLDER"):
        record = {subject: [asdict(one) for one in rounds] for subject, rounds in timed.rounds.items()}
        samples = {
            side: {subject: [asdict(one) for one in own] for subject, own in samples.items()}
            for side, samples in (("here", timed.here), ("there", timed.there))
        }
        path = Path(folder) / f"{fault or 'itself'}-{night:02}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"rounds": record, "samples": samples}))
