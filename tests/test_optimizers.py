"""The contract of every optimizer in conf/: a new YAML is tested by being there."""

import copy
import gc
import inspect
import io
import math
import re
import warnings
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from omegaconf import OmegaConf
from torch import Tensor, nn
from torch.nn import functional

from optbench.catalogue import entries
from optbench.component import Capability, Limit, OptimizerComponent, optimizer_component
from optbench.components import locate
from optbench.data import load_digits
from optbench.errors import UsageError
from optbench.memory import state_bytes
from optbench.optim.build import build, check
from optbench.stepper import Stepper
from optbench.train import rate, set_rates
from tests.conftest import MakeTrial, RunTrial

CONF = Path(__file__).parent.parent / "conf" / "optimizer"
CATALOGUE = {entry.name: entry for entry in entries("optimizer") if "/" not in entry.name and entry.name != "custom"}
NAMES = list(CATALOGUE)
# At least one of each package and kind, for contracts that take seconds; `make verify` goes through all.
QUICK = (
    *("adafactor", "adamw", "lbfgs", "muon", "sam", "sgd", "signum"),
    *("adopt", "adamw8bit", "adamwfp8", "came", "dadapt_adam", "galore", "lion", "prodigy"),
    *("momo", "schedulefree_adamw", "shampoo", "soap", "sophia"),
)
SOME = [pytest.param(name, marks=[] if name in QUICK else [pytest.mark.verify]) for name in NAMES]

# Arguments that are not offered: they turn the optimizer into something else, or do nothing.
NOT_OFFERED = {"maximize", "capturable", "differentiable", "kwargs"}
_BITSANDBYTES = {"amsgrad", "optim_bits", "args"}  # refused or ignored
NOT_OFFERED_BY = {
    "adamw8bit": _BITSANDBYTES,
    "adam8bit": _BITSANDBYTES,
    "paged_adamw8bit": _BITSANDBYTES,
    "lion8bit": {"args"},
    "dadapt_adam": {"log_every"},
    "dadapt_sgd": {"log_every"},
    "dadapt_lion": {"log_every"},
    "adopt": {"clip_lambda"},  # a function, which YAML cannot hold
}

# Where a file departs from the class's own default, its header says why.
OWN_VALUES: dict[str, dict[str, Any]] = {
    "adafactor": {"eps": (1e-15, 0.001)},
    "adamw_independent": {"betas": (0.9, 0.999)},
    "amsgrad": {"amsgrad": True},
    "apollo_mini": {"scale_type": "tensor", "scale": 128.0},
    "came": {"lr": 0.0002},
    "dadapt_lion": {"lr": 0.1},
    "dadapt_sgd": {"growth_rate": 1.06},
    "lars": {"lr": 1.0},
    "lbfgs": {"max_iter": 2, "line_search_fn": "strong_wolfe"},
    "momentum": {"momentum": 0.9},
    "momentum_averaging": {"momentum": 0.9, "dampening": 0.9},
    "nesterov": {"momentum": 0.9, "nesterov": True},
    "null": {"lr": 0.0},
    "rmsprop_centered": {"centered": True},
    "rmsprop_momentum": {"momentum": 0.9, "lr": 0.001},
    "sgd_untuned": {"lr": 0.01},
    "sgdw": {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.0025},
    "sgdw_composer": {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.000125},
    "shampoo": {"preconditioning_compute_steps": 10},
    "signsgd": {"momentum": 0.0},
}

# At the rates in their files, which are those of their libraries, these need more than ten passes over the digits.
SLOW = {"dadapt_lion", "momentum_averaging", "sgd"}

# bfloat16 has 8 bits: a step below half the spacing of the weights rounds to nothing, whatever the optimizer. Where the
# rate in the file makes such steps, the method is tried at one that does not.
RATES_FOR_BF16 = {
    "lamb": 0.01,
    "lion": 0.001,
    "lion8bit": 0.001,
    "momentum": 0.1,
    "momentum_averaging": 1.0,
    "nesterov": 0.1,
    "nesterov_lookahead": 0.1,
    "sam": 0.1,
    "sgd": 0.1,
    "sgd_untuned": 0.1,
    "shampoo": 0.01,
}

# What arguments are called that say every how many steps something is done.
EVERY_SO_OFTEN = r"(_frequency|_freq|_gap|_period|_interval|_every|_compute_steps)$"

# What such an argument tells is done in every step alike.
EVEN = {
    "apollo": {"update_proj_gap"},  # each step draws its projection, the gap tells from which seed
    "apollo_mini": {"update_proj_gap"},
}

# What libraries warn of when such an optimizer trains on the CPU.
WARNS = {"paged_adamw8bit": "Paged optimizers are not supported on CPU"}


@pytest.fixture(autouse=True)
def _not_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """torchao compiles its step, which takes most of a minute."""
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)


def load(name: str) -> OptimizerComponent:
    config = OmegaConf.create({"optimizer": yaml.safe_load((CONF / f"{name}.yaml").read_text())})
    return optimizer_component(OmegaConf.to_container(config, resolve=True)["optimizer"])  # type: ignore[index, call-overload]


def optimizer(target: str, **arguments: Any) -> OptimizerComponent:
    return optimizer_component({"name": "mine", "_target_": target, **arguments})


class Training:
    """A small net on real digits, trained step by step.

    Args:
        component: the optimizer.
        sizes: of the layers; where the first is not 64, each image is repeated to fill it.
        dtype: of the parameters.
    """

    def __init__(
        self, component: OptimizerComponent, *, sizes: tuple[int, ...] = (64, 100, 100, 10), dtype: torch.dtype
    ) -> None:
        data = load_digits(test_size=360, split_seed=0, mean=[0.3053], std=[0.376], device=torch.device("cpu"))
        inputs = data.train_inputs.flatten(1).repeat(1, -(-sizes[0] // 64))[:, : sizes[0]]
        self._inputs, self._labels = inputs.to(dtype), data.train_labels
        torch.manual_seed(0)
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(sizes):
            layers += [nn.Linear(inputs, outputs), nn.ReLU()]
        self.model = nn.Sequential(*layers[:-1]).to(dtype)
        self._component = component
        self._num_steps = 0
        self.restart()

    def restart(self) -> None:
        """Build the optimizer anew."""
        self.optimizer = build(self._component, self.model)
        self._step_on = Stepper(
            self.loss, self.optimizer, capabilities=self._component.capabilities, max_grad_norm=None
        )
        self.swap("train")

    def swap(self, mode: str) -> None:
        if Capability.TRAIN_EVAL in self._component.capabilities:
            getattr(self.optimizer, mode)()

    def loss(self, batch: slice) -> Tensor:
        return functional.cross_entropy(self.model(self._inputs[batch]).float(), self._labels[batch])

    def train(self, num_steps: int) -> list[float]:
        """The losses of so many steps more."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Paged optimizers are not supported on CPU")
            return self._train(num_steps)

    def _train(self, num_steps: int) -> list[float]:
        losses = []
        for _ in range(num_steps):
            start = 64 * (self._num_steps % 20)
            torch.manual_seed(self._num_steps)  # some optimizers draw random numbers
            losses.append(self._step_on(slice(start, start + 64)).item())
            self._num_steps += 1
        return losses

    @property
    def weights(self) -> list[Tensor]:
        return [parameter.detach().clone() for parameter in self.model.parameters()]


def training(
    name: str, *, dtype: torch.dtype = torch.float32, arguments: Mapping[str, Any] | None = None, **options: Any
) -> Training:
    """Of the file's optimizer, even where it is known not to train such parameters."""
    component = load(name)
    component = replace(component, limits={}, arguments={**component.arguments, **(arguments or {})})
    return Training(component, dtype=dtype, **options)


@pytest.mark.parametrize("name", NAMES)
def test_a_file_offers_every_hyperparameter_of_its_class_at_the_default_of_the_class(name: str) -> None:
    loaded = load(name)
    _, *parameters = inspect.signature(locate(loaded, group="optimizer")).parameters.values()
    offered = {
        parameter.name: parameter.default
        for parameter in parameters
        if parameter.name not in NOT_OFFERED | NOT_OFFERED_BY.get(name, set())
    }
    written = {key: tuple(value) if isinstance(value, list) else value for key, value in loaded.arguments.items()}
    assert written == {key: _plain(value) for key, value in offered.items()} | OWN_VALUES.get(name, {})


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


@pytest.mark.parametrize("name", NAMES)
def test_a_file_states_its_convention(name: str) -> None:
    assert "weight_decay" in CATALOGUE[name].conventions
    assert set(CATALOGUE[name].conventions) <= {"momentum", "weight_decay", "eps"}


@pytest.mark.parametrize("name", NAMES)
def test_a_file_gives_its_source_and_its_advice_has_one_too(name: str) -> None:
    assert CATALOGUE[name].source.startswith("https://")
    advice = load(name).advice
    assert advice is None or advice.source.startswith("https://")


@pytest.mark.parametrize("name", NAMES)
def test_the_loss_falls_on_real_digits_and_again_exactly_so(name: str, run_trial: RunTrial) -> None:
    many, few = (22, 4) if Capability.CLOSURE in load(name).capabilities else (220, 44)
    overrides = [f"optimizer={'null' if name == 'null' else name}", f"evaluation.every_num_steps={few}"]
    first, second = (run_trial(*overrides, f"budget.num_steps={num_steps}") for num_steps in (many, few))
    assert first.status == "completed", first.summary
    losses = first.curve["test_loss"]
    if name == "null":
        assert losses[-1] == losses[0]
    else:
        assert losses[-1] < (0.999 if name in SLOW else 0.95) * losses[0]
    for metric in ("train_loss", "test_loss", "test_accuracy"):
        assert first.curve[metric][:2] == second.curve[metric]
    assert WARNS.get(name, "") in first.summary.get("warnings", "")
    assert ("warnings" in first.summary) == (name in WARNS), first.summary.get("warnings")


@pytest.mark.parametrize("name", NAMES)
def test_a_trial_says_what_the_optimizer_keeps(name: str, run_trial: RunTrial) -> None:
    summary = run_trial(f"optimizer={name}", "budget.num_steps=2", "evaluation.every_num_steps=2").summary
    assert "peak_bytes" not in summary, "nothing is tracked while a trial trains"
    assert (summary["state_bytes"] > 0) == (CATALOGUE[name].state_bytes_per_parameter != 0.0)
    assert 0.0 <= summary["low_bit_share"] <= 1.0
    assert sum(group["num_parameters"] for group in summary["param_groups"]) == summary["num_parameters"]


@pytest.mark.parametrize("name", NAMES)
def test_state_takes_the_bytes_that_the_file_declares(name: str) -> None:
    trained = training(name, sizes=(784, 100, 100, 10))
    trained.train(2)
    num_parameters = sum(parameter.numel() for parameter in trained.model.parameters())
    assert num_parameters == 89_610
    measured = state_bytes(trained.optimizer) / num_parameters
    assert measured == pytest.approx(CATALOGUE[name].state_bytes_per_parameter, rel=0.005, abs=0.001)


@pytest.mark.parametrize("name", NAMES)
def test_training_goes_on_from_a_saved_state_as_if_nothing_had_been(name: str) -> None:
    trained = training(name)
    trained.train(7)
    file = io.BytesIO()
    torch.save(trained.optimizer.state_dict(), file)
    weights = copy.deepcopy(trained.model.state_dict())
    expected = trained.train(7)
    resumed = training(name)
    resumed.model.load_state_dict(weights)
    resumed.restart()
    file.seek(0)
    resumed.optimizer.load_state_dict(torch.load(file, weights_only=False))
    resumed._num_steps = 7
    same = resumed.train(7) == expected and all(map(torch.equal, resumed.weights, trained.weights))
    assert same != (Limit.STATE_DICT in load(name).limits)


@pytest.mark.parametrize("name", NAMES)
def test_a_saved_state_can_be_loaded_without_running_code_or_the_file_says_that_it_cannot(name: str) -> None:
    trained = training(name)
    trained.train(2)
    file = io.BytesIO()
    torch.save(trained.optimizer.state_dict(), file)
    file.seek(0)
    try:
        torch.load(file, weights_only=True)
    except Exception:
        assert Limit.WEIGHTS_ONLY_LOAD in load(name).limits
    else:
        assert Limit.WEIGHTS_ONLY_LOAD not in load(name).limits


@pytest.mark.parametrize("name", SOME)
def test_bfloat16_parameters_train_or_the_file_says_that_they_do_not(name: str) -> None:
    capabilities = load(name).capabilities
    num_steps = 20 if Capability.CLOSURE in capabilities else 200 if Capability.LR_FREE in capabilities else 60
    faster = {"lr": RATES_FOR_BF16[name]} if name in RATES_FOR_BF16 else {}
    fall = _fall(training(name, arguments=faster).train(num_steps))
    try:
        trains = _fall(training(name, arguments=faster, dtype=torch.bfloat16).train(num_steps)) >= 0.25 * fall
    except (RuntimeError, TypeError, ValueError):
        trains = False
    assert trains != (Limit.BF16_PARAMETERS in load(name).limits)


@pytest.mark.parametrize("name", NAMES)
def test_state_keeps_its_precision_when_bfloat16_parameters_are_reloaded_or_the_file_says_that_it_does_not(
    name: str,
) -> None:
    if Limit.BF16_PARAMETERS in load(name).limits:
        pytest.skip("does not train bfloat16 parameters")
    trained = training(name, dtype=torch.bfloat16)
    trained.train(2)
    saved = copy.deepcopy(_dtypes(trained.optimizer))
    file = io.BytesIO()
    torch.save(trained.optimizer.state_dict(), file)
    file.seek(0)
    trained.restart()
    trained.optimizer.load_state_dict(torch.load(file, weights_only=False))
    assert (_dtypes(trained.optimizer) == saved) != (Limit.BF16_RELOAD in load(name).limits)


def _fall(losses: list[float]) -> float:
    return sum(losses[:10]) / 10 - sum(losses[-10:]) / 10


def _dtypes(optimizer: torch.optim.Optimizer) -> list[str]:
    return [
        f"{key} {value.dtype}"
        for state in optimizer.state.values()
        if isinstance(state, Mapping)  # MoMo has a list there, too
        for key, value in state.items()
        if isinstance(value, Tensor) and value.numel() > 1
    ]


@pytest.mark.parametrize("name", NAMES)
def test_a_first_step_at_rate_0_does_no_harm_or_the_file_says_that_it_does(name: str) -> None:
    """A warm-up begins with one."""
    trained = training(name)
    peak_rates = [rate(group) for group in trained.optimizer.param_groups]
    set_rates(trained.optimizer, peak_rates, factor=0.0)
    try:
        trained.train(1)
        set_rates(trained.optimizer, peak_rates, factor=1.0)
        is_sound = all(math.isfinite(loss) for loss in trained.train(3))
    except ZeroDivisionError:
        is_sound = False
    assert is_sound != (Limit.ZERO_RATE in load(name).limits)


@pytest.mark.parametrize("name", SOME)
def test_a_step_leaves_no_graph_alive(name: str) -> None:
    def graphs() -> int:
        gc.collect()
        found = (item for item in gc.get_objects() if issubclass(type(item), Tensor))
        return sum(tensor.grad_fn is not None for tensor in found)

    trained = training(name)
    before = graphs()
    trained.train(3)
    assert graphs() == before


@pytest.mark.parametrize("name", NAMES)
def test_what_a_class_needs_of_the_loop_is_declared(name: str) -> None:
    built, capabilities = training(name).optimizer, load(name).capabilities
    parameters = inspect.signature(type(built).step).parameters
    needs_closure = parameters["closure"].default is inspect.Parameter.empty or "loss" in parameters  # one of the two
    assert needs_closure == bool(capabilities & {Capability.CLOSURE, Capability.EXTRA_PASS})
    swaps = callable(getattr(built, "train", None)) and callable(getattr(built, "eval", None))
    assert swaps == (Capability.TRAIN_EVAL in capabilities)
    assert all(isinstance(group["lr"], float | Tensor | None) for group in built.param_groups)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_declared_as_a_relative_has_a_name(name: str) -> None:
    for departure in CATALOGUE[name].config.get("departs") or []:
        assert departure["from"] == "rule" or departure["from"] in NAMES
        assert departure["step"] >= 1
        assert departure["because"]


@pytest.mark.parametrize(
    ("name", "overrides", "bytes_per_parameter"),
    [
        ("rmsprop", ["optimizer.momentum=0.9"], 8.0),
        ("adam", ["optimizer.amsgrad=true"], 12.0),
        ("prodigy", ["optimizer.slice_p=11"], 8.73),
    ],
)
def test_state_takes_the_bytes_that_an_option_adds(
    run_trial: RunTrial, name: str, overrides: list[str], bytes_per_parameter: float
) -> None:
    summary = run_trial(f"optimizer={name}", "budget.num_steps=2", *overrides).summary
    assert summary["state_bytes"] / summary["num_parameters"] == pytest.approx(bytes_per_parameter, abs=0.01)


def test_a_value_that_the_class_refuses_is_named() -> None:
    with pytest.raises(UsageError, match=r"AdamW.*refuses lr=-1.0.*Invalid learning rate"):
        check(optimizer("torch.optim.AdamW", lr=-1.0))


def test_a_value_that_the_class_refuses_without_a_word_is_named_too() -> None:
    with pytest.raises(UsageError, match=r"Lion.*refuses lr=-1.0"):
        check(optimizer("lion_pytorch.Lion", lr=-1.0))


def test_a_hyperparameter_that_the_class_lacks_is_an_error_with_the_nearest_one() -> None:
    with pytest.raises(UsageError, match=r"unknown key 'optimizer.beta' .*Did you mean 'optimizer.betas'") as caught:
        check(optimizer("torch.optim.AdamW", lr=0.1, beta=0.9))
    assert "weight_decay" in str(caught.value)


def test_a_class_that_cannot_be_imported_is_an_error() -> None:
    with pytest.raises(UsageError, match="no_such_package"):
        check(optimizer("no_such_package.Mine"))


def no_optimizer(params: list[nn.Parameter]) -> int:
    return len(params)


def test_something_that_is_no_optimizer_is_an_error() -> None:
    with pytest.raises(UsageError, match=r"not a torch\.optim\.Optimizer"):
        check(optimizer("tests.test_optimizers.no_optimizer"))


class Forgetful(torch.optim.SGD):
    """Leaves the last parameter out."""

    def __init__(self, params: list[nn.Parameter], lr: float) -> None:
        super().__init__(params[:-1] or [nn.Parameter(torch.zeros(1))], lr=lr)


class SmallOnly(torch.optim.SGD):
    """Leaves large tensors out."""

    def __init__(self, params: list[nn.Parameter], lr: float) -> None:
        super().__init__([parameter for parameter in params if parameter.numel() < 50], lr=lr)


def test_an_optimizer_that_leaves_a_parameter_out_is_an_error() -> None:
    with pytest.raises(UsageError, match="leaves out 1 of 2 trainable parameters"):
        build(optimizer("tests.test_optimizers.Forgetful", lr=0.1), nn.Linear(2, 2))


def test_frozen_parameters_are_not_handed_over() -> None:
    model = nn.Linear(2, 2)
    model.bias.requires_grad_(False)
    built = build(load("sgd"), model)
    assert [parameter for group in built.param_groups for parameter in group["params"]] == [model.weight]


@pytest.mark.parametrize(("name", "rate_in_the_long_run"), [("momentum_averaging", 1.0), ("momentum", 10.0)])
def test_under_a_constant_gradient_momentum_goes_at_the_rate_of_its_convention(
    name: str, rate_in_the_long_run: float, make_trial: MakeTrial
) -> None:
    model = nn.Linear(1, 1, bias=False, dtype=torch.float64)
    parameter = model.weight
    built = build(make_trial(f"optimizer={name}", "optimizer.lr=1.0").optimizer, model)
    parameter.grad = torch.ones_like(parameter)
    for _ in range(300):
        before = parameter.item()
        built.step()
    assert before - parameter.item() == pytest.approx(rate_in_the_long_run)


def test_the_averaging_momentum_keeps_its_damping_when_beta_is_set(make_trial: MakeTrial) -> None:
    trial = make_trial("optimizer=momentum_averaging", "optimizer.momentum=0.5")
    assert trial.optimizer.arguments["dampening"] == 0.5


@pytest.mark.parametrize("name", NAMES)
def test_what_is_refreshed_now_and_then_is_declared(name: str) -> None:
    component, declared = load(name), CATALOGUE[name].config.get("period", [])
    found = {key for key in {**component.arguments, **component.matrices} if re.search(EVERY_SO_OFTEN, key)}
    assert found - EVEN.get(name, set()) == ({declared} if isinstance(declared, str) else set(declared))
    assert (component.period > 1) == bool(declared)
