"""An optimizer's compiled step is the same step: all of the catalogue whose files do not say that it is none."""

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch._dynamo.utils import counters

from optbench import building, components
from optbench.catalogue import names
from optbench.component import Capability, Limit
from optbench.device import configured
from optbench.stepper import Stepper
from optbench.train import rate, set_rates
from optbench.trial import Trial
from tests.conftest import MakeTrial

CPU = torch.device("cpu")
# More than the code of a step may be compiled anew before torch gives up and leaves it as it is.
NUM_STEPS = 12
# Of the way that the weights have gone.
MOST, MOST_IN_BFLOAT16 = 1e-4, 0.01
IN_BFLOAT16 = ("muon",)  # its products
FORBIDDING = {Capability.CLOSURE, Capability.EXTRA_PASS, Capability.CREATE_GRAPH}
OPTIMIZERS = [name for name in names("optimizer") if name != "custom" and "/" not in name]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What `compare` finds.

    Attributes:
        distance: between the weights of both ways, over that from the start.
        num_captured: operations in the graphs that were compiled.
        num_graphs: those graphs.
    """

    distance: float
    num_captured: int
    num_graphs: int


def trained(trial: Trial) -> tuple[torch.Tensor, torch.Tensor]:
    """All weights before and after the steps."""
    with configured(trial.hardware, CPU):
        task, optimizer = building.build(trial, CPU)
        start = torch.cat([parameter.detach().flatten().clone() for parameter in task.model.parameters()])
        schedule = components.build_schedule(trial.schedule)
        peak_rates = [rate(group) for group in optimizer.param_groups]
        step = Stepper(
            task.loss,
            optimizer,
            capabilities=trial.optimizer.capabilities,
            max_grad_norm=None,
            hardware=trial.hardware,
        )
        if Capability.TRAIN_EVAL in trial.optimizer.capabilities:
            optimizer.train()  # type: ignore[attr-defined]
        batches = task.batches()
        for index in range(NUM_STEPS):
            set_rates(optimizer, peak_rates, factor=schedule(index / NUM_STEPS))
            step(next(batches))
        return start, torch.cat([parameter.detach().flatten() for parameter in task.model.parameters()])


def compare(make_trial: MakeTrial, name: str) -> Comparison:
    """Train the digits MLP in both ways, at a rate that changes in every step where the optimizer has one."""
    has_no_rate = make_trial(f"optimizer={name}").optimizer.arguments.get("lr", 0.0) is None
    overrides = (f"optimizer={name}", "hardware=cpu", f"schedule={'constant' if has_no_rate else 'cosine'}")
    start, eager = trained(make_trial(*overrides))
    torch._dynamo.reset()
    counters.clear()
    # Where it is compiled anew too often, torch would go on without; here that is an error.
    config: Any = torch._dynamo.config
    with config.patch(fail_on_recompile_limit_hit=True):
        _, compiled = trained(make_trial(*overrides, "hardware.compile_step=true"))
    way = float((eager - start).norm())
    return Comparison(
        distance=float((compiled - eager).norm()) / (way or 1.0),  # one optimizer takes no way at all
        num_captured=counters["stats"]["calls_captured"],
        num_graphs=counters["stats"]["unique_graphs"],
    )


def can_be_compiled(make_trial: MakeTrial, name: str) -> bool:
    optimizer = make_trial(f"optimizer={name}", "schedule=constant").optimizer
    return not optimizer.capabilities & FORBIDDING and Limit.COMPILED_STEP not in optimizer.limits


@pytest.mark.verify
@pytest.mark.filterwarnings("ignore")  # of the compiler, about itself
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_compiled_step_is_the_same_step(name: str, make_trial: MakeTrial) -> None:
    if not can_be_compiled(make_trial, name):
        pytest.skip("its file says why")
    found = compare(make_trial, name)
    assert found.num_captured > 0
    assert found.distance < (MOST_IN_BFLOAT16 if name in IN_BFLOAT16 else MOST)
