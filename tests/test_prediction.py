"""Predictions, and what was measured of the same step."""

import dataclasses
import resource
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import optimizer

from optbench import memory, prediction
from optbench.catalogue import names
from optbench.component import Limit
from optbench.cost import Memory
from optbench.device import configured
from optbench.errors import UsageError
from optbench.memory import Training, measure
from optbench.prediction import NotPredictable, predict
from optbench.trial import Trial
from tests.conftest import MakeTrial
from tests.models import Mlp, trial

CPU = torch.device("cpu")
OPTIMIZERS = [name for name in names("optimizer") if "/" not in name and name != "custom"]
# Shorter periods, or fewer iterations, than their own: the same work, less of it.
SHORTER = {
    "galore": ["optimizer.matrices.update_proj_gap=2"],
    "soap": ["optimizer.precondition_frequency=2"],
    "sophia": ["optimizer.update_period=2"],
    "shampoo": ["optimizer.preconditioning_compute_steps=1"],
}
# At least one of each package and kind; `make verify` goes through all.
QUICK = (
    *("adafactor", "adamw", "muon", "sgd", "lbfgs"),
    *("adan", "galore", "soap", "sophia"),
    *("adamw8bit", "adamwfp8"),
    *("came", "dadapt_adam", "lion", "prodigy", "schedulefree_adamw"),
    *("apollo", "sam"),
)
# Not among them: without data, Shampoo's iteration always takes the 100 rounds that it may take.
QUICK_TRANSFORMERS = (("Vit", "adamw8bit"), ("Gpt", "adamw"), ("Gpt", "adafactor"))
# Its iteration ends early where numbers say that it may, and keeps a number or two for that.
NEARLY = {"shampoo": 16}


@pytest.fixture(autouse=True)
def _quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """The profiler's figure has no counterpart here, and all state is there after one step."""
    monkeypatch.setattr(Training, "kernel_peak_bytes", lambda _: None)
    monkeypatch.setattr(memory, "NUM_FIRST_STEPS", 1)


def measured(asked: Trial) -> Memory:
    with configured(asked.hardware, CPU):
        return measure(asked, CPU)


def figures(of: Memory) -> dict[str, Any]:
    """All but what tells the one from the other, and what only a step that is taken has."""
    found = dataclasses.asdict(of)
    return {key: value for key, value in found.items() if key not in ("kind", "kernel_peak_bytes")}


def assert_equal(asked: Trial) -> None:
    taken = measured(asked)  # first: tables that a library keeps would otherwise be without data
    predicted = predict(asked)
    assert (taken.kind, predicted.kind) == ("measured", "predicted")
    assert figures(predicted) == figures(taken)


@pytest.mark.filterwarnings("ignore:Paged optimizers are not supported on CPU")
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in QUICK else [pytest.mark.verify]) for name in OPTIMIZERS]
)
def test_the_whole_catalogue_is_predicted_to_the_byte_or_says_that_it_cannot_be(
    name: str, make_trial: MakeTrial
) -> None:
    asked = make_trial(f"optimizer={name}", "task.hidden_sizes=[64,64]", *SHORTER.get(name, ()))
    if Limit.PREDICTION in asked.optimizer.limits:
        with pytest.raises(NotPredictable, match=f"{name}: "):
            predict(asked)
    elif name in NEARLY:
        assert predict(asked).peak_bytes == pytest.approx(measured(asked).peak_bytes, abs=NEARLY[name])
    else:
        assert_equal(asked)


@pytest.mark.parametrize(
    ("model", "optimizer"),
    [
        pytest.param(model, name, marks=[] if (model, name) in QUICK_TRANSFORMERS else [pytest.mark.verify])
        for model in ("Vit", "Gpt")
        for name in ("adamw", "lion", "adafactor", "prodigy", "adamw8bit")
    ],
)
def test_transformers_are_predicted_to_the_byte(model: str, optimizer: str, make_trial: MakeTrial) -> None:
    part = make_trial(f"optimizer={optimizer}").optimizer
    assert_equal(dataclasses.replace(trial(model, batch_size=4), optimizer=part))


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
@pytest.mark.parametrize(
    "changes",
    [
        {"hardware.precision": "bf16"},
        {"hardware.precision": "bf16_params"},
        {"hardware.precision": "fp16"},
        {"hardware.num_micro_batches": 2},
        {"hardware.gradient_checkpointing": True},
        {"hardware.implementation": "foreach"},
        {"hardware.implementation": "fused"},
        {"hardware.compile_model": True},
        {"max_grad_norm": 1.0},
    ],
    ids=lambda changes: next(iter(changes)) + "=" + str(next(iter(changes.values()))),
)
def test_whatever_the_hardware_config_asks_for_is_predicted_to_the_byte(changes: dict[str, Any]) -> None:
    model = "Vit" if "hardware.gradient_checkpointing" in changes else "Gpt"
    assert_equal(trial(model, batch_size=4, **changes))


def test_groups_of_parameters_are_predicted_to_the_byte(make_trial: MakeTrial) -> None:
    assert_equal(make_trial("param_groups=no_decay", "max_grad_norm=0.1"))


def test_a_task_that_looks_at_its_data_is_predicted_to_the_byte() -> None:
    assert_equal(trial("Looking", batch_size=8))


def test_a_convolution_is_predicted_to_the_byte() -> None:
    assert_equal(trial("Cnn", batch_size=4))


def test_ten_gigabytes_of_parameters_are_predicted_and_not_allocated() -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = predict(trial("Huge", batch_size=64))
    grown_bytes = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    assert found.parameter_bytes > 10 * 10**9
    assert found.peak_bytes > 4 * found.parameter_bytes
    assert grown_bytes < 2**29


def test_on_a_gpu_an_optimizer_takes_all_parameters_at_once_and_needs_no_gpu_for_that_to_be_known() -> None:
    cpu, gpu = (predict(trial("Mlp", **{"batch_size": 4, "hardware.device": device})) for device in ("cpu", "cuda"))
    foreach = predict(trial("Mlp", **{"batch_size": 4, "hardware.implementation": "foreach"}))
    assert figures(gpu) == figures(foreach)
    assert gpu.transient_bytes == pytest.approx(gpu.parameter_bytes, rel=0.01)
    assert gpu.transient_bytes != cpu.transient_bytes


def test_a_limit_of_a_card_that_is_not_here_is_no_matter() -> None:
    asked = trial("Mlp", **{"batch_size": 4, "hardware.device": "cuda", "hardware.memory_limit_gb": 24.0})
    assert predict(asked).peak_bytes > 0


def test_a_step_that_depends_on_numbers_is_not_predictable_and_the_reason_says_so() -> None:
    with pytest.raises(NotPredictable, match=r"without data, it fails: .*nonzero"):
        predict(trial("Choosy", batch_size=4))


def test_a_mistake_is_a_mistake() -> None:
    with pytest.raises(UsageError, match="there are 10 images"):
        predict(trial("Mlp", **{"batch_size": 11, "task.num_images": 10}))


@pytest.mark.parametrize("model", ["Mlp", "Choosy"])
def test_torch_is_as_it_was_afterwards(model: str) -> None:
    before = nn.Module._apply
    try:
        predict(trial(model, batch_size=4))
    except NotPredictable:
        assert model == "Choosy"
    assert nn.Module._apply is before
    assert "cpu" not in optimizer._get_foreach_kernels_supported_devices()
    assert prediction.FakeTensor not in optimizer._foreach_supported_types
    assert type(torch.ones(1)) is torch.Tensor


def test_a_converted_module_keeps_what_is_tied(monkeypatch: pytest.MonkeyPatch) -> None:
    def make(_: Mlp) -> nn.Module:
        first, second = nn.Linear(192, 192), nn.Linear(192, 192)
        second.weight = first.weight
        return nn.Sequential(nn.Flatten(), first, second).to(torch.bfloat16).float()

    monkeypatch.setattr(Mlp, "make", make)
    assert_equal(trial("Mlp", batch_size=4))
    assert predict(trial("Mlp", batch_size=4)).num_parameters == 192 * 192 + 2 * 192


def test_numbers_are_a_half_unless_they_tell_of_an_overflow() -> None:
    with prediction.FakeTensorMode(), prediction._Answers():
        x = torch.ones(3, 3)
        assert x.sum().item() == 0.5
        assert x.any()
        assert (x.norm() > 0.1).item()
        assert not (x.norm() > 1.0)
        assert not torch.isnan(x).any()
        assert not torch.isinf(x).any()
        assert torch.isfinite(x).all()
        assert torch.tensor(7.0).item() == 7.0


def test_what_is_filled_with_zeros_is_known_to_be_until_it_is_written_to() -> None:
    with prediction.FakeTensorMode(), prediction._Answers():
        x = nn.Parameter(torch.empty(3))
        assert x.any()
        nn.init.zeros_(x)
        assert not x.any()
        assert not torch.zeros_like(x).any()
        torch._foreach_add_([x.data], 1.0)
        assert x.any()
        x.data.fill_(0.0)
        assert not x.any()
        x.data.fill_(2.0)
        assert x.any()
        x.data[0].zero_()
        assert x.any()  # the rest is as it was
        torch.zeros(3, out=x.data)
        torch.ones(3, out=x.data)
        assert x.any()
