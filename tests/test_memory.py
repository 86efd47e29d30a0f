"""Bytes, counted by hand, by the tracker and by allocators."""

import dataclasses
import gc
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from optbench import memory, stepper
from optbench.allocator import Allocator
from optbench.component import optimizer_component
from optbench.cost import Memory, Phase
from optbench.memory import measure, state_bytes, state_bytes_by_dtype
from optbench.optim.build import build
from optbench.prediction import predict
from optbench.stepper import Stepper
from optbench.tracker import Peaks, Role, Tracker
from optbench.trial import Trial
from tests.conftest import MakeTrial
from tests.models import trial

FLOAT = 4
CPU = torch.device("cpu")


def stepped(optimizer: torch.optim.Optimizer, parameter: nn.Parameter) -> torch.optim.Optimizer:
    parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    return optimizer


def test_adamw_keeps_two_floats_for_each_parameter_and_a_step_counter() -> None:
    parameter = nn.Parameter(torch.ones(1000))
    assert state_bytes(stepped(torch.optim.AdamW([parameter]), parameter)) == 2 * 1000 * FLOAT + FLOAT


def test_an_optimizer_without_state_keeps_nothing() -> None:
    parameter = nn.Parameter(torch.ones(1000))
    assert state_bytes(stepped(torch.optim.SGD([parameter], lr=0.1), parameter)) == 0


def test_storage_that_is_shared_counts_once() -> None:
    first, second = nn.Parameter(torch.ones(10)), nn.Parameter(torch.ones(10))
    optimizer = torch.optim.SGD([first, second], lr=0.1)
    table = torch.zeros(256)
    optimizer.state[first] = {"table": table, "nested": {"views": [table[:128], table[128:]]}}
    optimizer.state[second] = {"table": table}
    assert state_bytes(optimizer) == 256 * FLOAT


def test_state_is_told_by_its_dtype() -> None:
    parameter = nn.Parameter(torch.ones(10))
    optimizer = torch.optim.SGD([parameter], lr=0.1)
    optimizer.state[parameter] = {"a": torch.zeros(10, dtype=torch.uint8), "b": torch.zeros(10), "c": torch.zeros(1)}
    assert state_bytes_by_dtype(optimizer) == {"float32": 11 * FLOAT, "uint8": 10}


def peaks_of(work: Any, *, tracker: Tracker | None = None) -> Peaks:
    tracker = tracker or Tracker(CPU)
    tracker.start()
    tracker.mark(Phase.FORWARD)
    with tracker:
        work(tracker)
    return tracker.peaks()


def test_the_peak_is_what_is_alive_at_the_same_time() -> None:
    def work(_: Tracker) -> None:
        a = torch.empty(1000)
        del a
        torch.empty(2000)

    assert peaks_of(work).phase_bytes[Phase.FORWARD] == 2000 * FLOAT  # not 3000: the first is gone before


def test_each_phase_has_a_peak_and_its_parts_which_add_up_to_it() -> None:
    def work(tracker: Tracker) -> None:
        a, weight = torch.empty(1000), torch.empty(300)
        tracker.add([weight], Role.PARAMETERS)
        tracker.mark(Phase.BACKWARD)
        del a
        tracker.mark(Phase.OPTIMIZER)
        torch.empty(50)

    peaks = peaks_of(work)
    assert peaks.phase_bytes == {
        Phase.FORWARD: 1300 * FLOAT,
        Phase.BACKWARD: 1300 * FLOAT,  # as it begins
        Phase.OPTIMIZER: 350 * FLOAT,
    }
    for phase, rest in ((Phase.FORWARD, "activations"), (Phase.OPTIMIZER, "transient")):
        parts = {part: num_bytes for part, num_bytes in peaks.phase_parts[phase].items() if num_bytes}
        assert parts == {"parameters": 300 * FLOAT, rest: peaks.phase_bytes[phase] - 300 * FLOAT}
    assert peaks.activation_bytes == 1000 * FLOAT
    assert peaks.transient_bytes == 50 * FLOAT


def test_a_view_is_no_new_memory_and_one_of_the_data_set_is_none_at_all() -> None:
    data = torch.ones(1_000_000)

    def work(tracker: Tracker) -> None:
        assert tracker.add_batch(data[:64]) == 64 * FLOAT
        seen = data[64:128]
        (seen * 2.0).view(8, 8).t()

    assert peaks_of(work).phase_bytes[Phase.FORWARD] == 2 * 64 * FLOAT


def test_a_storage_that_grows_is_followed() -> None:
    def work(_: Tracker) -> None:
        out = torch.empty(0)
        torch.ones(100, out=out)

    assert peaks_of(work).phase_bytes[Phase.FORWARD] == 100 * FLOAT


def test_what_is_elsewhere_takes_nothing_of_the_device() -> None:
    peaks = peaks_of(lambda _: torch.empty(1000, device="meta"))
    assert peaks.phase_bytes[Phase.FORWARD] == 0


def test_a_tensor_subclass_takes_the_bytes_of_what_it_is_made_of(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torchao's 8-bit state says that it is float32, and holds a quarter of that."""
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    model = nn.Linear(512, 512, bias=False)
    optimizer = build(optimizer_component({"name": "fp8", "_target_": "torchao.optim.AdamWFp8", "lr": 0.1}), model)
    stepper = Stepper(lambda batch: model(batch).sum(), optimizer, capabilities=frozenset(), max_grad_norm=None)
    stepper(torch.ones(1, 512))
    parameter_bytes = FLOAT * 512 * 512
    assert state_bytes(optimizer) == pytest.approx(2 * parameter_bytes / 4, rel=0.02)
    peaks = peaks_of(lambda _: stepper(torch.ones(1, 512)))
    assert peaks.phase_bytes[Phase.FORWARD] < 7.6 * parameter_bytes


@pytest.fixture(scope="module")
def mlp() -> Memory:
    return measure(trial("Mlp", batch_size=32), CPU)


def test_a_step_of_an_mlp_with_adamw_takes_what_a_count_by_hand_gives(mlp: Memory) -> None:
    weights = (192 * 256, 256, 256 * 10, 10)
    assert mlp.kind == "measured"
    assert mlp.counted == "tensors"
    assert mlp.num_parameters == sum(weights)
    assert mlp.parameter_bytes == mlp.gradient_bytes == FLOAT * sum(weights)
    assert mlp.state_bytes == 2 * FLOAT * sum(weights) + FLOAT * len(weights)
    assert mlp.state_bytes_by_dtype == {"float32": mlp.state_bytes}
    assert mlp.frozen_bytes == 0
    assert mlp.batch_bytes == 32 * (192 * FLOAT + 8)
    # Of the largest matrix: the square root of its second moment, and the quotient of that.
    assert mlp.transient_bytes == pytest.approx(2 * FLOAT * weights[0], rel=0.01)
    assert mlp.peak_phase is Phase.OPTIMIZER
    assert mlp.times_parameters == pytest.approx(3.0, rel=0.001)
    assert mlp.times_parameters_with_gradients == pytest.approx(4.0, rel=0.001)


@pytest.mark.parametrize("model", ["Mlp", "Cnn", "Vit", "Gpt"])
@pytest.mark.parametrize("optimizer", ["torch.optim.SGD", "torch.optim.AdamW"])
def test_the_parts_add_up_to_the_peak_and_nothing_is_above_it(model: str, optimizer: str) -> None:
    found = measure(trial(model, **{"batch_size": 4, "optimizer._target_": optimizer}), CPU)
    assert sum(found.peak_parts.values()) == found.peak_bytes
    assert min(found.peak_parts.values()) >= 0
    assert found.peak_bytes == max(found.phase_peak_bytes.values()) == found.phase_peak_bytes[found.peak_phase]
    held = found.parameter_bytes + found.frozen_bytes + found.state_bytes
    assert held + found.activation_bytes <= found.peak_bytes + found.gradient_bytes
    assert held + found.gradient_bytes + found.batch_bytes <= found.peak_bytes + found.activation_bytes
    assert found.kernel_peak_bytes is not None
    assert found.kernel_peak_bytes >= found.peak_bytes


def test_the_allocators_events_agree_where_kernels_need_no_workspace_and_are_above_where_they_do(mlp: Memory) -> None:
    assert mlp.kernel_peak_bytes == pytest.approx(mlp.peak_bytes, abs=64)
    cnn = measure(trial("Cnn", **{"batch_size": 1, "optimizer._target_": "torch.optim.SGD"}), CPU)
    assert cnn.kernel_peak_bytes is not None
    assert cnn.kernel_peak_bytes > 1.02 * cnn.peak_bytes  # 1.27 where oneDNN has AVX-512


def test_a_profiler_that_fails_costs_the_cross_check_alone(mlp: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(**_: Any) -> Any:
        raise RuntimeError("no profiler here")

    monkeypatch.setattr(torch.profiler, "profile", broken)
    assert measure(trial("Mlp", batch_size=32), CPU) == dataclasses.replace(mlp, kernel_peak_bytes=None)


def test_a_larger_minibatch_costs_activations_and_nothing_else(mlp: Memory) -> None:
    larger = measure(trial("Mlp", batch_size=64), CPU)
    assert larger.batch_bytes == 2 * mlp.batch_bytes
    assert larger.activation_bytes > 1.9 * mlp.activation_bytes
    assert (larger.parameter_bytes, larger.gradient_bytes, larger.state_bytes, larger.transient_bytes) == (
        mlp.parameter_bytes,
        mlp.gradient_bytes,
        mlp.state_bytes,
        mlp.transient_bytes,
    )


def test_micro_batches_and_checkpointing_save_activations() -> None:
    vit = measure(trial("Vit", batch_size=16), CPU)
    for changes in ({"hardware.num_micro_batches": 4}, {"hardware.gradient_checkpointing": True}):
        assert measure(trial("Vit", batch_size=16, **changes), CPU).activation_bytes < 0.6 * vit.activation_bytes


def test_a_whole_period_is_gone_through(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = trial("Mlp", batch_size=4)
    periodic = dataclasses.replace(asked, optimizer=dataclasses.replace(asked.optimizer, period=3))
    taken = []
    step = Stepper.__call__
    monkeypatch.setattr(Stepper, "__call__", lambda self, batch: taken.append(1) or step(self, batch))
    assert measure(periodic, CPU).num_steps == 3
    assert len(taken) >= memory.NUM_FIRST_STEPS + 3
    monkeypatch.setattr(memory, "MAX_UNSEEN_STEPS", 60)
    endless = dataclasses.replace(asked, optimizer=dataclasses.replace(asked.optimizer, period=10_000))
    found = measure(endless, CPU)
    assert found.num_steps == memory.MAX_STEPS
    assert not found.is_settled


@pytest.mark.parametrize("tell", [measure, lambda asked, _: predict(asked)], ids=["measured", "predicted"])
def test_a_refresh_that_comes_late_is_seen(
    tell: Callable[[Trial, torch.device], Memory], monkeypatch: pytest.MonkeyPatch, make_trial: MakeTrial
) -> None:
    monkeypatch.setattr(memory.Training, "kernel_peak_bytes", lambda _: None)
    monkeypatch.setattr(memory, "MAX_STEPS", 6)
    galore = ("optimizer=galore", "task.hidden_sizes=[64,64]", "hardware=cpu")
    soon, late = (tell(make_trial(*galore, f"optimizer.matrices.update_proj_gap={gap}"), CPU) for gap in (3, 20))
    assert late.peak_bytes == soon.peak_bytes
    assert late.transient_bytes == soon.transient_bytes
    assert late.is_settled
    monkeypatch.setattr(memory.Training, "approach", lambda _: None)
    unseen = tell(make_trial(*galore, "optimizer.matrices.update_proj_gap=20"), CPU)
    assert unseen.transient_bytes < soon.transient_bytes


def test_a_state_that_grows_is_measured_when_it_has_or_said_to_grow(make_trial: MakeTrial) -> None:
    asked = make_trial("optimizer=lbfgs", "optimizer.history_size=5", "hardware=cpu")
    assert asked.optimizer.settles == 5
    found = measure(asked, CPU)
    assert found.is_settled
    assert found.state_bytes == pytest.approx((2 * 5 + 2) * found.parameter_bytes, rel=0.01)
    undeclared = dataclasses.replace(asked, optimizer=dataclasses.replace(asked.optimizer, settles=0))
    growing = measure(undeclared, CPU)
    assert growing.state_bytes < found.state_bytes
    assert not growing.is_settled


def test_half_precision_is_measured_when_steps_are_no_longer_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = trial("Mlp", **{"batch_size": 4, "hardware.precision": "fp16"})
    usual = measure(asked, CPU)
    unscaled: list[int] = []
    unscale = torch.amp.GradScaler.unscale_

    def overflow(self: torch.amp.GradScaler, optimizer: torch.optim.Optimizer) -> None:
        unscaled.append(1)
        if self.get_scale() > 2.0**10:
            next(parameter for group in optimizer.param_groups for parameter in group["params"]).grad.fill_(torch.inf)
        unscale(self, optimizer)

    monkeypatch.setattr(torch.amp.GradScaler, "unscale_", overflow)
    assert measure(asked, CPU) == usual
    assert len(unscaled) > 6
    assert usual.state_bytes > 2 * usual.parameter_bytes
    monkeypatch.setattr(stepper, "MAX_SKIPPED", 3)
    with pytest.raises(RuntimeError, match="precision=fp16: within 3 steps"):
        measure(asked, CPU)


def test_every_step_begins_with_its_minibatch() -> None:
    marked: list[Phase] = []
    training = memory.Training(trial("Mlp", batch_size=4), CPU, mark=marked.append)
    training.take(2)
    assert marked == 2 * [Phase.DATA, Phase.OPTIMIZER, Phase.FORWARD, Phase.BACKWARD, Phase.OPTIMIZER]


def test_the_garbage_collector_works_again_after_a_failure() -> None:
    def fail() -> None:
        with memory.no_garbage():
            assert not gc.isenabled()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert gc.isenabled()


class Card:
    """The functions of `torch.cuda` that tell of memory, for a card whose memory is set by hand."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.allocated = self.most = 0
        for name, value in {
            "synchronize": lambda _: None,
            "empty_cache": lambda: None,
            "memory_allocated": lambda _: self.allocated,
            "memory_reserved": lambda _: 2 * self.allocated,
            "max_memory_allocated": lambda _: self.most,
            "max_memory_reserved": lambda _: 2 * self.most,
            "reset_peak_memory_stats": self.reset,
            "mem_get_info": lambda _: (1_000_000 - 3 * self.allocated, 1_000_000),
        }.items():
            patch.setattr(torch.cuda, name, value)

    def reset(self, _: Any) -> None:
        self.most = self.allocated

    def set(self, *levels: int) -> None:
        for level in levels:
            self.allocated = level
            self.most = max(self.most, level)


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> Iterator[Card]:
    return Card(monkeypatch)


def test_a_gpus_peaks_are_its_allocators_and_the_parts_add_up_to_them(card: Card, mlp: Memory) -> None:
    card.set(500)  # the data set
    allocator = Allocator(CPU)
    card.set(9_000, 600)  # what comes before the steps that are counted
    allocator.start()
    for _ in range(2):
        allocator.mark(Phase.FORWARD)
        card.set(700, 1_500)
        allocator.mark(Phase.BACKWARD)
        card.set(1_700, 900)
        allocator.mark(Phase.OPTIMIZER)
        card.set(1_200, 600)
    allocator.stop()
    roles = {"parameters": 100, "frozen": 10, "gradients": 0, "state": 200, "batch": 20}
    parts: dict[Phase, dict[str, int]] = {
        Phase.FORWARD: {**roles, "activations": 500},
        Phase.BACKWARD: {**roles, "gradients": 50, "activations": 600},
        Phase.OPTIMIZER: {**roles, "gradients": 100, "transient": 30},
    }
    found = allocator.corrected(mlp, parts=parts, alive_bytes=60)
    assert found.counted == "allocated"
    assert found.phase_peak_bytes == {"forward": 1_000, "backward": 1_200, "optimizer": 700}
    assert (found.peak_bytes, found.peak_phase) == (1_200, Phase.BACKWARD)
    # Of the 100 that are there between two steps tensors are 60: the rest is workspace, and no part of the update.
    assert found.peak_parts == {**roles, "gradients": 50, "activations": 1_200 - 380 - 40, "workspace": 40}
    assert found.activation_bytes == 1_200 - 380 - 40
    assert found.transient_bytes == 1_200 - 900
    assert found.reserved_bytes == 2 * 1_200
    assert found.device_bytes == 3 * 100


def test_compiled_code_that_holds_less_than_the_log_tells_has_parts_that_add_up_too(card: Card, mlp: Memory) -> None:
    allocator = Allocator(CPU)
    allocator.start()
    allocator.mark(Phase.BACKWARD)
    card.set(350)
    allocator.stop()
    roles = {"parameters": 100, "frozen": 0, "gradients": 100, "state": 200, "batch": 0}
    found = allocator.corrected(mlp, parts={Phase.BACKWARD: {**roles, "activations": 60}}, alive_bytes=0)
    assert found.peak_parts == {**roles, "gradients": 50, "activations": 0, "workspace": 0}


def test_a_data_set_on_the_device_is_not_counted_and_the_minibatch_is() -> None:
    class Data:
        def __init__(self) -> None:
            self.images = torch.ones(100_000, 10)

    tracker, data = Tracker(CPU), Data()
    batch: Tensor = data.images[:8]

    def work(tracker: Tracker) -> None:
        tracker.add_batch((batch, data.images[8:16]))

    assert peaks_of(work, tracker=tracker).phase_bytes[Phase.FORWARD] == 2 * 8 * 10 * FLOAT
