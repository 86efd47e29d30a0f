"""Bytes, counted by hand and by the tracker."""

import pytest
import torch
from torch import nn

from optbench.component import optimizer_component
from optbench.memory import peak_tensor_bytes, state_bytes
from optbench.optim.build import build

FLOAT = 4


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


def test_the_peak_is_what_is_alive_at_the_same_time() -> None:
    module = nn.Linear(100, 100, bias=False)
    batch = torch.ones(1, 100)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)

    def step() -> None:
        a = torch.empty(1000)
        del a
        torch.empty(2000)

    held = (100 * 100 + 100) * FLOAT
    peak = peak_tensor_bytes(step, module=module, optimizer=optimizer, batch=batch)
    assert peak == held + 2000 * FLOAT  # not 3000: the first is gone when the second comes


def test_the_peak_of_a_training_step_holds_parameters_gradients_state_and_activations() -> None:
    module = nn.Linear(100, 50, bias=False)
    batch = torch.ones(8, 100)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9, foreach=False)

    def step() -> None:
        optimizer.zero_grad()
        module(batch).sum().backward()
        optimizer.step()

    step()
    peak = peak_tensor_bytes(step, module=module, optimizer=optimizer, batch=batch)
    weight = 100 * 50 * FLOAT
    held = 3 * weight + 8 * 100 * FLOAT  # parameters, gradients, momentum, batch
    assert held <= peak <= held + 2 * 8 * 50 * FLOAT + 64  # and the outputs with their gradients, which are small


def test_the_tracker_leaves_the_training_as_it_was() -> None:
    module = nn.Linear(4, 4)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    before = [parameter.clone() for parameter in module.parameters()]
    peak_tensor_bytes(lambda: None, module=module, optimizer=optimizer, batch=torch.ones(1))
    assert all(torch.equal(a, b) for a, b in zip(before, module.parameters(), strict=True))


def test_a_tensor_subclass_takes_the_bytes_of_what_it_is_made_of(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torchao's 8-bit state says that it is float32, and holds a quarter of that."""
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    model = nn.Linear(512, 512, bias=False)
    optimizer = build(optimizer_component({"name": "fp8", "_target_": "torchao.optim.AdamWFp8", "lr": 0.1}), model)
    batch = torch.ones(1, 512)

    def step() -> None:
        optimizer.zero_grad()
        model(batch).sum().backward()
        optimizer.step()

    step()
    parameter_bytes = 4 * 512 * 512
    assert state_bytes(optimizer) == pytest.approx(2 * parameter_bytes / 4, rel=0.02)
    peak = peak_tensor_bytes(step, module=model, optimizer=optimizer, batch=batch)
    assert peak < 8.6 * parameter_bytes
