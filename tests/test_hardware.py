"""The hardware group: the same step, computed in another way; and what it cannot ask for."""

import itertools
import os
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from torch._dynamo.utils import counters
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import ViTConfig, ViTForImageClassification

from optbench import building
from optbench.catalogue import entries
from optbench.checkpoint import Keeper
from optbench.component import Limit
from optbench.device import GIB, configured, resolve_device
from optbench.errors import UsageError
from optbench.hardware import SINCE, Hardware
from optbench.measurement import Status
from optbench.run import check, run
from optbench.settings import identity
from optbench.stepper import Stepper, parts
from optbench.task import Task
from optbench.train import rate, set_rates
from optbench.trial import Trial
from tests.conftest import MakeTrial
from tests.handmade import config, trial
from tests.test_checkpoint import figures, run_until

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)
# Another value for each key that came later.
CHANGED: dict[str, Any] = {
    "precision": "bf16",
    "implementation": "foreach",
    "compile_model": True,
    "compile_step": True,
    "gradient_checkpointing": True,
    "num_micro_batches": 2,
    "deterministic": True,
    "memory_limit_gb": 24.0,
}


def own(task: str, *, hardware: Mapping[str, Any], **optimizer: Any) -> Trial:
    """A trial of a task of this file on the CPU."""
    return Trial.from_config(
        config(
            {
                "task": {
                    "name": task.lower(),
                    "_target_": f"tests.test_hardware.{task}",
                    "num_steps": 6,
                    "evaluate_every_num_steps": 2,
                    "metrics": {"test_loss": "min"},
                },
                "data": None,
                "optimizer": {"name": "sgd", "_target_": "torch.optim.SGD", "lr": 0.1, **optimizer},
                "hardware": {"device": "cpu", "num_threads": 1, **hardware},
            }
        )
    )


def stepper(trial: Trial, task: Task, optimizer: torch.optim.Optimizer) -> Stepper:
    return Stepper(
        task.loss,
        optimizer,
        capabilities=trial.optimizer.capabilities,
        max_grad_norm=None,
        hardware=trial.hardware,
    )


def stepped(trial: Trial, *, num_steps: int = 1) -> tuple[Task, Stepper, list[Tensor]]:
    """The task, the stepper and the losses after some steps."""
    task, optimizer = building.build(trial, CPU)
    step = stepper(trial, task, optimizer)
    return task, step, [step(batch) for batch in itertools.islice(task.batches(), num_steps)]


def weights(task: Task) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in task.model.parameters()])


def gradients(task: Task) -> Tensor:
    found = [parameter.grad for parameter in task.model.parameters() if parameter.requires_grad]
    assert all(gradient is not None for gradient in found)
    return torch.cat([gradient.flatten() for gradient in found if gradient is not None])


class Steep:
    """A linear loss whose gradient fits into float16 when it is scaled by 2**15, and not by 2**16."""

    def __init__(self, *, seed: int, device: torch.device) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.model = nn.Linear(2, 1).to(device)
        self.x = torch.tensor([[1.0, -0.5]], device=device)

    def batches(self) -> Iterator[int]:
        return itertools.count()

    def loss(self, batch: int) -> Tensor:
        return 1.5 * self.model(self.x).float().sum()

    @torch.no_grad()
    def evaluate(self) -> Mapping[str, float]:
        return {"test_loss": self.loss(0).item()}


class Tied:
    """Predicts the next token, with one matrix for the first and the last layer and a recurrent one between them."""

    def __init__(self, *, seed: int, device: torch.device) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            first, last = nn.Embedding(8, 16), nn.Linear(16, 8, bias=False)
            self.model = nn.ModuleDict({"first": first, "middle": nn.GRU(16, 16), "last": last}).to(device)
        last.weight = first.weight
        self.tokens = torch.arange(8, device=device)

    def batches(self) -> Iterator[Tensor]:
        return itertools.repeat(self.tokens)

    def loss(self, batch: Tensor) -> Tensor:
        hidden, _ = self.model["middle"](self.model["first"](batch))
        return functional.cross_entropy(self.model["last"](hidden).float(), batch.roll(1))

    @torch.no_grad()
    def evaluate(self) -> Mapping[str, float]:
        return {"test_loss": self.loss(self.tokens).item()}


class Vit:
    """A small vision transformer on noise, within a module of the task's own."""

    def __init__(self, *, seed: int, device: torch.device) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
            self.vit = ViTForImageClassification(ViTConfig(image_size=8, patch_size=4, num_labels=3, **sizes))
            self.images = torch.randn(4, 3, 8, 8)
        self.model: nn.Module = nn.ModuleDict({"vit": self.vit}).to(device)
        self.num_passes = 0
        layer = next(module for module in self.vit.modules() if type(module).__name__ == "ViTLayer")
        layer.attention.register_forward_hook(self._passed)

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        return itertools.repeat((self.images, torch.tensor([0, 1, 2, 0])))

    def loss(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        images, labels = batch
        return functional.cross_entropy(self.vit(images).logits, labels)

    def evaluate(self) -> Mapping[str, float]:
        return {"test_loss": 0.0}

    def _passed(self, *_: object) -> None:
        self.num_passes += 1


class Lora(Vit):
    """The same with low-rank adapters, all else frozen."""

    def __init__(self, *, seed: int, device: torch.device) -> None:
        super().__init__(seed=seed, device=device)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            lora = LoraConfig(r=2, target_modules=r".*(query|q_proj|value|v_proj)", init_lora_weights=False)
            self.model = get_peft_model(self.vit, lora)


# What names a trial


def test_there_is_another_value_for_each_key() -> None:
    assert CHANGED.keys() == SINCE.keys()
    assert all(CHANGED[key] != SINCE[key] for key in SINCE)


def test_a_config_from_before_there_were_the_keys_has_the_id_and_the_setting_that_it_had(make_trial: MakeTrial) -> None:
    composed = make_trial().config
    kept = {key: value for key, value in composed["hardware"].items() if key not in SINCE}
    assert kept.keys() == {"device", "num_threads"}
    before = {**composed, "hardware": kept}
    assert Trial.from_config(before).id == make_trial().id
    assert identity(before) == identity(composed)
    assert trial({f"hardware.{key}": value for key, value in SINCE.items()}).id == trial().id


@pytest.mark.parametrize("key", CHANGED)
def test_each_key_makes_another_trial_and_another_setting(key: str) -> None:
    changed = trial({f"hardware.{key}": CHANGED[key]})
    assert changed.id != trial().id
    assert identity(changed.config) != identity(trial().config)


def test_the_defaults_of_the_config_are_those_of_a_config_without_the_keys() -> None:
    path = Path(__file__).parent.parent / "conf" / "config.yaml"
    assert yaml.safe_load(path.read_text())["hardware"] == dict(SINCE)


def test_a_card_is_a_gpu_of_its_memory() -> None:
    cards = [entry for entry in entries("hardware") if entry.name not in ("auto", "cpu", "cuda")]
    assert len(cards) > 10
    for card in cards:
        assert card.config.keys() == {"device", "num_threads", "memory_limit_gb"}
        assert card.config["device"] == "cuda"
        assert f"{card.config['memory_limit_gb']:.2f} GiB" in card.description
        (reported,) = re.findall(r"(\d+) MiB", card.header)
        assert card.config["memory_limit_gb"] == pytest.approx(int(reported) / 1024, abs=0.005)


# Precision


@pytest.mark.parametrize(("precision", "dtype"), [("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_products_are_rounded_and_parameters_are_not(precision: str, dtype: torch.dtype, make_trial: MakeTrial) -> None:
    trial = make_trial("hardware=cpu", f"hardware.precision={precision}")
    task, optimizer = building.build(trial, CPU)
    seen: list[torch.dtype] = []
    linear = next(module for module in task.model.modules() if isinstance(module, nn.Linear))
    linear.register_forward_hook(lambda _module, _inputs, output: seen.append(output.dtype))
    stepper(trial, task, optimizer)(next(iter(task.batches())))
    task.evaluate()
    assert set(seen) == {dtype}
    assert len(seen) > 1
    assert all(parameter.dtype == parameter.grad.dtype == torch.float32 for parameter in task.model.parameters())


def test_half_precision_scales_the_loss_and_the_optimizer_does_not_see_it(make_trial: MakeTrial) -> None:
    trials = [make_trial("hardware=cpu", f"hardware.precision={precision}") for precision in ("fp32", "fp16")]
    largest: list[list[float]] = [[], []]
    tasks = []
    for asked, seen in zip(trials, largest, strict=True):
        task, optimizer = building.build(asked, CPU)
        first = next(task.model.parameters())
        first.register_hook(lambda gradient, seen=seen: seen.append(gradient.abs().max().item()))
        stepper(asked, task, optimizer)(next(iter(task.batches())))
        tasks.append(task)
    (plain,), (scaled,) = largest
    assert scaled / plain == pytest.approx(2.0**16, rel=0.01)
    torch.testing.assert_close(gradients(tasks[0]), gradients(tasks[1]), rtol=0.02, atol=1e-4)


def test_a_gradient_that_is_not_finite_skips_a_step_and_the_training_goes_on() -> None:
    trial = own("Steep", hardware={"precision": "fp16"})
    task, optimizer = building.build(trial, CPU)
    step = stepper(trial, task, optimizer)
    start = weights(task).clone()
    step(0)
    assert torch.equal(weights(task), start)
    step(1)
    torch.testing.assert_close(start - weights(task), 0.1 * 1.5 * torch.tensor([1.0, -0.5, 1.0]), rtol=0.01, atol=0.0)
    assert step.num_gradient_evaluations == 2


def test_a_preempted_trial_goes_on_with_the_scale_that_it_had(tmp_path: Path) -> None:
    trial = own("Steep", hardware={"precision": "fp16"})
    whole = run(trial, on_measurement=lambda _: None)
    assert whole.status is Status.COMPLETED
    assert run_until(trial, tmp_path, step=2).status is Status.PREEMPTED
    resumed = run_until(trial, tmp_path, step=None)
    assert resumed.summary["resumed_at_step"] == 2
    assert figures(resumed) == figures(whole)  # another skipped step would be another loss


def test_a_checkpoint_of_evaluations_alone_leads_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An earlier optbench kept no more of a step."""
    asked = own("Steep", hardware={})
    whole = run(asked, on_measurement=lambda _: None)
    save = Keeper.save

    def save_as_before(self: Keeper, loop: Mapping[str, Any]) -> None:
        others = {key: value for key, value in loop.items() if key != "stepper"}
        save(self, {**others, "gradient_evaluations": loop["stepper"]["gradient_evaluations"]})

    monkeypatch.setattr(Keeper, "save", save_as_before)
    assert run_until(asked, tmp_path, step=2).status is Status.PREEMPTED
    resumed = run_until(asked, tmp_path, step=None)
    assert resumed.summary["resumed_at_step"] == 2
    assert figures(resumed) == figures(whole)


def test_parameters_in_bfloat16_have_gradients_and_state_in_it_and_stay_tied() -> None:
    trial = own("Tied", hardware={"precision": "bf16_params"}, _target_="torch.optim.AdamW")
    task, optimizer = building.build(trial, CPU)
    model = task.model
    assert model["first"].weight is model["last"].weight
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    stepper(trial, task, optimizer)(next(iter(task.batches())))
    for name, parameter in model.named_parameters():
        assert parameter.dtype == parameter.grad.dtype == optimizer.state[parameter]["exp_avg"].dtype == torch.bfloat16
        assert not torch.equal(parameter, before[name]), f"{name} is what the model computes with"


def test_only_an_optimizer_that_rounds_at_random_is_asked_to(make_trial: MakeTrial) -> None:
    asked = ("hardware=cpu", "hardware.precision=bf16_params_stochastic")
    has_it = make_trial(*asked, "optimizer=adamwfp8")
    assert building.optimizer_component(has_it).arguments["bf16_stochastic_round"] is True
    _, optimizer = building.build(has_it, CPU)
    assert optimizer.bf16_stochastic_round is True
    with pytest.raises(UsageError, match=r"adamw cannot do that \(torch.optim.AdamW has no argument bf16_stoch"):
        building.build(make_trial(*asked, "optimizer=adamw"), CPU)


# Micro-batches


@pytest.mark.parametrize("num_parts", [2, 3, 5])
@pytest.mark.parametrize("optimizer", ["sgd", "lbfgs"])
def test_parts_of_a_minibatch_have_the_gradient_of_the_whole(
    optimizer: str, num_parts: int, make_trial: MakeTrial
) -> None:
    found = []
    for k in (1, num_parts):
        trial = make_trial("hardware=cpu", f"optimizer={optimizer}", f"hardware.num_micro_batches={k}")
        task, built = building.build(trial, CPU)
        task.model.double()
        step = stepper(trial, task, built)
        images, labels = next(iter(task.batches()))
        loss = step((images.double(), labels))
        found.append((loss, gradients(task), weights(task), step.num_gradient_evaluations))
    torch.testing.assert_close(found[1], found[0], rtol=1e-9, atol=1e-12)
    assert optimizer == "lbfgs" or found[0][-1] == 1


def test_the_parts_are_all_of_the_minibatch_and_their_shares_add_up() -> None:
    batch = {"x": torch.arange(7), "y": (torch.arange(14).view(7, 2), "words")}
    found = parts(batch, 3)
    assert [part["x"].tolist() for part, _ in found] == [[0, 1], [2, 3], [4, 5, 6]]
    assert [part["y"][0].shape[0] * 1 / 7 for part, _ in found] == [share for _, share in found]
    assert all(part["y"][1] == "words" for part, _ in found)
    assert sum(share for _, share in found) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("batch", "why"),
    [
        (None, "no first dimension in common"),
        (torch.tensor(1.0), "no first dimension in common"),
        ((torch.zeros(4), torch.zeros(3)), "no first dimension in common"),
        (torch.zeros(4, 9), "4 examples"),
    ],
    ids=str,
)
def test_a_minibatch_without_so_many_examples_cannot_be_split(batch: Any, why: str) -> None:
    with pytest.raises(UsageError, match=f"num_micro_batches=5: .*{why}"):
        parts(batch, 5)


# Gradient checkpointing


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")  # peft, of transformers
@pytest.mark.parametrize("task", ["Vit", "Lora"])
def test_activations_that_are_computed_again_have_the_same_gradients(task: str) -> None:
    found = []
    for is_asked in (False, True):
        trial = own(task, hardware={"gradient_checkpointing": is_asked})
        built, _, _ = stepped(trial)
        found.append((gradients(built), built.num_passes))  # type: ignore[attr-defined]
    (plain, num_plain), (checkpointed, num_checkpointed) = found
    assert (num_plain, num_checkpointed) == (1, 2)
    assert plain.abs().max() > 0
    torch.testing.assert_close(checkpointed, plain)


# How the step is computed


class _Called(TorchDispatchMode):
    """The names of the operations."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.add(func.__name__)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("implementation", "is_there"), [("for_loop", "lerp_"), ("foreach", "_foreach_lerp_"), ("fused", "_fused_adamw_")]
)
def test_an_implementation_is_the_one_that_runs(implementation: str, is_there: str, make_trial: MakeTrial) -> None:
    trial = make_trial("hardware=cpu", "optimizer=adamw", f"hardware.implementation={implementation}")
    task, optimizer = building.build(trial, CPU)
    loss = task.loss(next(iter(task.batches())))
    loss.backward()
    with _Called() as called:
        optimizer.step()
    first_words = {name.partition(".")[0] for name in called.names}
    assert first_words & {"lerp_", "_foreach_lerp_", "_fused_adamw_"} == {is_there}


@pytest.mark.parametrize("optimizer", ["adamw", "sgd", "rmsprop", "adagrad"])
def test_a_loop_and_its_vectorized_form_are_the_same_in_every_bit(optimizer: str, make_trial: MakeTrial) -> None:
    component = make_trial(f"optimizer={optimizer}").optimizer
    assert "foreach" in component.arguments
    loop, foreach = (
        weights(
            stepped(
                make_trial("hardware=cpu", f"optimizer={optimizer}", f"hardware.implementation={implementation}"),
                num_steps=5,
            )[0]
        )
        for implementation in ("for_loop", "foreach")
    )
    assert torch.equal(loop, foreach)


def test_an_implementation_reaches_the_companion(make_trial: MakeTrial) -> None:
    trial = make_trial("hardware=cpu", "optimizer=muon", "hardware.implementation=fused")
    _, optimizer = building.build(trial, CPU)
    muon, adamw = optimizer.parts
    assert "fused" not in muon.defaults
    assert adamw.defaults["fused"] is True


# The process


def test_deterministic_algorithms_are_asked_for_and_no_longer_afterwards(make_trial: MakeTrial) -> None:
    trial = make_trial("hardware=cpu", "hardware.deterministic=true")
    values = torch.zeros(3)

    def put() -> None:
        values.put_(torch.tensor([0, 0]), torch.tensor([1.0, 2.0]))  # which of both is last

    with configured(trial.hardware, CPU):
        assert torch.are_deterministic_algorithms_enabled()
        with pytest.raises(RuntimeError, match="deterministic"):
            put()
    put()
    assert not torch.are_deterministic_algorithms_enabled()
    result = run(trial, on_measurement=lambda _: None)
    assert result.status is Status.COMPLETED
    assert not torch.are_deterministic_algorithms_enabled()


def state_of_the_process() -> dict[str, Any]:
    return {
        "threads": torch.get_num_threads(),
        "dtype": torch.get_default_dtype(),
        "device": torch.get_default_device(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "only warns": torch.is_deterministic_algorithms_warn_only_enabled(),
        "grad": torch.is_grad_enabled(),
        "anomaly": torch.is_anomaly_enabled(),
        "benchmark": torch.backends.cudnn.benchmark,
        "tf32": torch.backends.cudnn.allow_tf32,
        "matmul": torch.get_float32_matmul_precision(),
        "autocast": torch.is_autocast_enabled("cpu"),
        "folder": Path.cwd(),
        "cublas": os.environ.get("CUBLAS_WORKSPACE_CONFIG"),
        "children": threading.active_count(),
    }


@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16", "fp16", "bf16_params"])
def test_what_a_trial_sets_is_as_it_was_for_the_next_one(precision: Any, tmp_path: Path) -> None:
    hardware = Hardware(device="auto", num_threads=2, precision=precision, deterministic=True)
    before = state_of_the_process()
    with suppress(ZeroDivisionError), configured(hardware, CPU):
        assert torch.get_num_threads() == 2
        assert torch.get_float32_matmul_precision() == ("high" if precision == "tf32" else "highest")
        assert torch.backends.cudnn.allow_tf32 == (precision == "tf32")
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
        torch.set_default_dtype(torch.float64)
        torch.set_default_device("meta")
        torch.set_grad_enabled(False)
        torch.autograd.set_detect_anomaly(True)
        torch.backends.cudnn.benchmark = not before["benchmark"]
        os.chdir(tmp_path)
        raise ZeroDivisionError
    assert state_of_the_process() == before


@pytest.fixture
def gpu_of(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A stand-in for a GPU of so many GiB, which remembers the parts of its memory that a process was given."""

    def make(total_gib: float) -> list[float]:
        fractions: list[float] = []
        properties = SimpleNamespace(total_memory=int(total_gib * GIB))
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: properties)
        monkeypatch.setattr(
            torch.cuda, "set_per_process_memory_fraction", lambda fraction, _device: fractions.append(fraction)
        )
        return fractions

    return make


@pytest.mark.parametrize(
    ("total_gib", "limit_gb", "expected"), [(80.0, 24.0, 0.3), (80.0, None, 1.0), (23.6, 24.0, 1.0)]
)
def test_a_trial_may_take_so_much_of_a_gpu(
    total_gib: float, limit_gb: float | None, expected: float, gpu_of: Any
) -> None:
    fractions = gpu_of(total_gib)
    hardware = Hardware(device="cuda", num_threads=1, memory_limit_gb=limit_gb)
    assert resolve_device(hardware) == GPU
    with configured(hardware, GPU):
        assert fractions == [pytest.approx(expected)]
    assert fractions[-1] == 1.0


def test_a_gpu_cannot_stand_for_a_larger_one(gpu_of: Any) -> None:
    gpu_of(23.6)
    with pytest.raises(UsageError, match=r"memory_limit_gb=80: this GPU has 23\.6.*\n.*optbench fit"):
        resolve_device(Hardware(device="cuda", num_threads=1, memory_limit_gb=80.0))


# Compilation


@pytest.fixture
def eager_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    """Code is traced and guarded as it always is, but not compiled, which would take a hundred times as long."""
    monkeypatch.setattr(torch, "compile", lambda code: _COMPILE(code, backend="eager"))


_COMPILE = torch.compile


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")  # torch's compiler, about itself
@pytest.mark.usefixtures("eager_backend")
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_a_rate_that_changes_compiles_nothing_anew(optimizer: str, make_trial: MakeTrial) -> None:
    found = []
    for is_compiled in (False, True):
        trial = make_trial("hardware=cpu", f"optimizer={optimizer}", f"hardware.compile_step={is_compiled}")
        with configured(trial.hardware, CPU):
            task, built = building.build(trial, CPU)
            peak_rates = [rate(group) for group in built.param_groups]
            step = stepper(trial, task, built)
            counters.clear()
            num_graphs = []
            for index, batch in enumerate(itertools.islice(task.batches(), 6)):
                set_rates(built, peak_rates, factor=1.0 / (1 + index))
                step(batch)
                assert rate(built.param_groups[0]) == peak_rates[0] / (1 + index)
                num_graphs.append(counters["stats"]["unique_graphs"])
        found.append(weights(task))
    assert num_graphs[0] > 0
    assert num_graphs == num_graphs[:1] * 6
    torch.testing.assert_close(found[1], found[0], rtol=1e-4, atol=1e-6)


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")  # torch's compiler, about itself
@pytest.mark.usefixtures("eager_backend")
def test_what_was_compiled_for_other_trials_does_not_count(make_trial: MakeTrial) -> None:
    trial = make_trial("hardware=cpu", "optimizer=sgd", "hardware.compile_step=true")
    settings: Any = torch._dynamo.config
    for _ in range(3):
        counters.clear()
        with configured(trial.hardware, CPU), settings.patch(recompile_limit=1):  # then torch leaves code as it is
            stepped(trial)
            assert counters["stats"]["unique_graphs"] > 0


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")  # torch's compiler, about itself
@pytest.mark.usefixtures("eager_backend")
def test_a_model_is_compiled_in_place_and_trains_as_it_did(make_trial: MakeTrial) -> None:
    found = []
    for is_compiled in (False, True):
        trial = make_trial("hardware=cpu", f"hardware.compile_model={is_compiled}", "budget.num_steps=6")
        counters.clear()
        result = run(trial, on_measurement=lambda _: None)
        assert result.status is Status.COMPLETED
        found.append((result.summary["train_loss"], counters["stats"]["unique_graphs"]))
    (eager, num_eager), (compiled, num_compiled) = found
    assert compiled == pytest.approx(eager, rel=1e-5)
    assert num_eager == 0 < num_compiled


@pytest.mark.verify
@pytest.mark.filterwarnings("ignore")  # of the compiler, about itself
def test_a_model_that_is_really_compiled_trains_as_it_did(make_trial: MakeTrial) -> None:
    counters.clear()
    eager, compiled = (
        run(
            make_trial("hardware=cpu", f"hardware.compile_model={is_compiled}", "budget.num_steps=6"),
            on_measurement=lambda _: None,
        )
        for is_compiled in (False, True)
    )
    assert compiled.status is Status.COMPLETED
    assert counters["inductor"]
    assert compiled.summary["train_loss"] == pytest.approx(eager.summary["train_loss"], rel=1e-4)
    assert compiled.summary["test_loss"] == pytest.approx(eager.summary["test_loss"], rel=1e-4)


# What is refused, before anything trains

REFUSED = {
    "precision=tf32": ((), "only GPUs"),
    "memory_limit_gb=8.0": ((), "this is the CPU"),
    "gradient_checkpointing=true": ((), "the model of task=digits_mlp has none"),
    "implementation=fused": (("optimizer=prodigy",), "prodigyopt.Prodigy has no argument fused"),
    "precision=bf16_params_stochastic": ((), "no argument bf16_stochastic_round"),
    "precision=fp16": (("optimizer=lbfgs",), "the optimizer needs closure"),
    "compile_step=true": (("optimizer=sam",), "the optimizer needs extra_pass"),
    "num_micro_batches=2": (("optimizer=sophia",), "the optimizer needs create_graph"),
    "num_micro_batches=3": (("task=quadratic",), "no first dimension in common"),
    "num_micro_batches=65": ((), "they have 64 examples"),
}


@pytest.mark.parametrize("asked", REFUSED)
def test_what_cannot_be_is_refused_before_anything_trains(asked: str, make_trial: MakeTrial) -> None:
    others, message = REFUSED[asked]
    check(make_trial("hardware=cpu", *others))  # the same without it is sound, and is no reason to look no more
    with pytest.raises(UsageError, match=message):
        check(make_trial("hardware=cpu", *others, f"hardware.{asked}"))


@pytest.mark.parametrize("other", ["precision=fp16", "implementation=fused", "implementation=foreach"])
def test_a_step_that_would_not_be_compiled_is_not_said_to_be(other: str, make_trial: MakeTrial) -> None:
    with pytest.raises(UsageError, match=f"compile_step=true does not go with hardware.{other}"):
        check(make_trial("hardware=cpu", "hardware.compile_step=true", f"hardware.{other}"))


def test_the_reason_why_a_step_cannot_be_compiled_is_given(make_trial: MakeTrial) -> None:
    limited = {
        entry.name: entry.limits[Limit.COMPILED_STEP]
        for entry in entries("optimizer")
        if Limit.COMPILED_STEP in entry.limits
    }
    assert limited
    name = min(limited)
    asked = make_trial(f"optimizer={name}", "schedule=constant", "hardware=cpu", "hardware.compile_step=true")
    with pytest.raises(UsageError, match="compile_step=true") as error:
        check(asked)
    assert limited[name] in str(error.value)
