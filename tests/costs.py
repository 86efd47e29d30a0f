"""Costs made by hand, for tests of what shows them."""

from typing import Any

from optbench.cost import Cost, Memory, Phase, Spread, Time
from optbench.costs import cost_id
from optbench.machine import cpu_name, version
from tests.handmade import trial

ABACUS = "Abacus 3"  # what results made by hand ran on


def spread(median: float) -> Spread:
    return Spread(median=median, p10=0.9 * median, p90=1.1 * median, n=20)


def memory(**changes: Any) -> Memory:
    parts = {"parameters": 400, "frozen": 0, "gradients": 400, "state": 800, "batch": 64, "transient": 336}
    return Memory(
        **{
            "kind": "measured",
            "counted": "tensors",
            "num_parameters": 100,
            "parameter_bytes": 400,
            "frozen_bytes": 0,
            "gradient_bytes": 400,
            "state_bytes": 800,
            "state_bytes_by_dtype": {"float32": 800},
            "batch_bytes": 64,
            "activation_bytes": 300,
            "transient_bytes": 336,
            "peak_bytes": 2000,
            "peak_phase": Phase.OPTIMIZER,
            "phase_peak_bytes": dict.fromkeys(Phase, 2000),
            "peak_parts": parts,
            "num_steps": 1,
            **changes,
        }
    )


def time(**changes: Any) -> Time:
    phases = {Phase.DATA: 0.001, Phase.FORWARD: 0.002, Phase.BACKWARD: 0.003, Phase.OPTIMIZER: 0.004}
    return Time(
        **{
            "step": spread(0.01),
            "phases": {phase: spread(seconds) for phase, seconds in phases.items()},
            "steps_per_block": 5,
            "period": 1,
            "num_warmup_steps": 20,
            "is_steady": True,
            "first_step_seconds": 0.05,
            "compile_seconds": None,
            "reference": "adamw",
            "reference_step": spread(0.008),
            "reference_phases": {phase: spread(seconds) for phase, seconds in phases.items()},
            "ratio": spread(1.25),
            "optimizer_ratio": spread(1.5),
            **changes,
        }
    )


def cost(changes: dict[str, Any] | None = None, *, device: str | None = None, **others: Any) -> Cost:
    asked = trial(changes).config
    here = {"device": device or cpu_name(), "packages": {name: version(name) for name in ("optbench", "torch")}}
    found = {"memory": memory(), "predicted": memory(kind="predicted"), "time": time(), "contended": [], "failures": {}}
    return Cost(id=cost_id(asked), config=asked, environment=here, **{**found, **others})
