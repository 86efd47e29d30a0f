"""What only a GPU can tell: `make verify-gpu`. Where there is none, all of it is skipped.

The memory of three models is measured in fresh processes and compared with what is predicted without a GPU.
"""

import math
import multiprocessing
import os
import warnings
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from time import perf_counter
from typing import Any

import pytest
import torch

from optbench import building, memory, prediction, timing
from optbench.cost import Memory, Time
from optbench.device import configured, resolve_device
from optbench.errors import UsageError
from optbench.measurement import Status
from optbench.run import run
from optbench.trial import Trial
from tests import diffusion
from tests.conftest import MakeTrial
from tests.handmade import config

# The script itself is tried out on a processor: small models, and no test that needs a GPU.
REHEARSED = os.environ.get("OPTBENCH_REHEARSE_GPU") == "1"
HARDWARE, SIZE = ("cpu", "small") if REHEARSED else ("cuda", "full")
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="this needs a GPU")

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available() and not REHEARSED, reason=f"torch {torch.__version__} finds no GPU"
)

OPTIMIZERS = ("adamw", "adamw8bit", "adafactor", "lion", "prodigy")
TASKS = ("Mlp", "VitB16", "UnetLora")
# Of what is allocated: a prediction may be so far off.
TOLERANCE = 0.05


def of_task(task: str, optimizer: Mapping[str, Any], *, size: str = SIZE, **hardware: Any) -> dict[str, Any]:
    """The config of a trial of a task in tests/gpu/tasks.py."""
    return config(
        {
            "task": {
                "name": task.lower(),
                "_target_": f"tests.gpu.tasks.{task}",
                "size": size,
                "num_steps": 4,
                "evaluate_every_num_steps": 4,
                "metrics": {"test_loss": "min"},
            },
            "data": None,
            "optimizer": dict(optimizer),
            "hardware": {"device": HARDWARE, "num_threads": 1, **hardware},
        }
    )


def measured_and_predicted(asked: Mapping[str, Any]) -> tuple[Memory, Memory]:
    """As `optbench cost` finds them, in a process of their own."""
    warnings.simplefilter("ignore")
    trial = Trial.from_config(asked)
    device = resolve_device(trial.hardware)
    with configured(trial.hardware, device):
        found = memory.measure(trial, device)
    return found, prediction.predict(trial)


def in_fresh_process(asked: Mapping[str, Any]) -> tuple[Memory, Memory]:
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn, max_tasks_per_child=1) as pool:
        return pool.submit(measured_and_predicted, asked).result()


def mib(num_bytes: int | None) -> str:
    return "-" if num_bytes is None else f"{num_bytes / 2**20:.1f}"


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("task", TASKS)
def test_what_is_allocated_is_what_was_predicted(
    task: str, optimizer: str, make_trial: MakeTrial, table: list[str]
) -> None:
    chosen = make_trial(f"optimizer={optimizer}").config["optimizer"]
    found, predicted = in_fresh_process(of_task(task, chosen))
    ratio = predicted.peak_bytes / found.peak_bytes
    figures = (mib(predicted.peak_bytes), mib(found.peak_bytes), f"{ratio:.3f}")
    more = (mib(found.reserved_bytes), mib(found.device_bytes))
    widths = (11, 11, 8, 11, 11)
    cells = "".join(f"{cell:>{width}}" for cell, width in zip((*figures, *more), widths, strict=True))
    table.append(f"{task.lower():10}{optimizer:11}{cells}")
    assert found.counted == ("allocated" if HARDWARE == "cuda" else "tensors")
    assert sum(found.peak_parts.values()) == found.peak_bytes
    if task == "UnetLora" and SIZE == "full":
        assert found.num_parameters == 797_184
        assert predicted.num_parameters == 797_184
    assert ratio == pytest.approx(1.0, abs=TOLERANCE)
    assert predicted.state_bytes == pytest.approx(found.state_bytes, rel=TOLERANCE)


# LoRA on the UNet of Stable Diffusion 1.5, with random weights: what a step costs


def lora(optimizer: Mapping[str, Any], model: Mapping[str, Any], *, rank: int, batch_size: int) -> dict[str, Any]:
    """The config of `task=lora_sd model=sd15 model.weights=random` on photos of random dots."""
    adapters = {"rank": rank, "alpha": None, "targets": ["attention"], "init": "gaussian", "init_std": None}
    return config(
        {
            "task": {
                "name": "lora_sd",
                "_target_": "optbench.tasks.lora_sd.LoraSd",
                "lora": {**adapters, "dropout": 0.0, "rslora": False, "dora": False},
                "base_dtype": "bf16",
                "prediction": None,
                "min_snr_gamma": None,
                "loss_scale": 1.0,
                "batch_size": batch_size,
                "num_test_times": 1,
                "num_sampling_steps": 0,
                "num_steps": 4,
                "evaluate_every_num_steps": 4,
                "metrics": {"test_loss": "min"},
            },
            "model": dict(model),
            "data": {"name": "dots", "_target_": "tests.gpu.tasks.dots", "size": model["resolution"]},
            "optimizer": dict(optimizer),
            "hardware": {"device": HARDWARE, "num_threads": 1, "precision": "bf16"},
        }
    )


def measured_timed_and_predicted(asked: Mapping[str, Any], reference: Mapping[str, Any]) -> tuple[Memory, Time, Memory]:
    """As `optbench cost` finds them, in a process of their own."""
    warnings.simplefilter("ignore")
    trial = Trial.from_config(asked)
    device = resolve_device(trial.hardware)
    with configured(trial.hardware, device):
        found = memory.measure(trial, device)
        timed = timing.measure(trial, Trial.from_config(reference), device, seconds=2.0)
    return found, timed, prediction.predict(trial)


@pytest.mark.parametrize("batch_size", [1, 4])
@pytest.mark.parametrize("rank", [8, 128])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_step_of_lora_on_stable_diffusion_takes_what_was_predicted(
    optimizer: str, rank: int, batch_size: int, make_trial: MakeTrial, table: list[str]
) -> None:
    model = make_trial("task=lora_sd", "model=sd15", "model.weights=random").config["model"]
    if SIZE == "small":
        model = {**model, "resolution": diffusion.SIZE, "unet": diffusion.UNET}
    chosen, adamw = (
        lora(make_trial(f"optimizer={name}").config["optimizer"], model, rank=rank, batch_size=batch_size)
        for name in (optimizer, "adamw")
    )
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"), max_tasks_per_child=1) as pool:
        found, timed, predicted = pool.submit(measured_timed_and_predicted, chosen, adamw).result()
    ratio = predicted.peak_bytes / found.peak_bytes
    figures = (mib(predicted.peak_bytes), mib(found.peak_bytes), f"{ratio:.3f}", mib(found.reserved_bytes), "-")
    cells = "".join(f"{cell:>{width}}" for cell, width in zip(figures, (11, 11, 8, 11, 11), strict=True))
    times = f"  rank {rank}, batch {batch_size}: {1e3 * timed.step.median:.1f} ms"
    against = "" if timed.ratio is None else f", {timed.ratio.median:.2f} of AdamW"
    table.append(f"{'lora_sd':10}{optimizer:11}{cells}{times}{against}")
    if SIZE == "full":
        assert found.num_parameters == 199_296 * rank
    assert predicted.state_bytes == pytest.approx(found.state_bytes, rel=TOLERANCE)
    assert ratio == pytest.approx(1.0, abs=TOLERANCE)


# Whole trials


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("optimizer", ["adam8bit", "adamw8bit", "ademamix8bit", "lion8bit", "paged_adamw8bit"])
def test_optimizers_with_kernels_of_their_own_train(optimizer: str, make_trial: MakeTrial) -> None:
    trial = make_trial(f"hardware={HARDWARE}", f"optimizer={optimizer}", "budget.num_steps=220")
    result = run(trial, on_measurement=lambda _: None)
    assert result.status is Status.COMPLETED, result.summary.get("traceback")
    assert result.summary["test_accuracy"] > 0.5
    assert result.environment["device_type"] == HARDWARE


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("precision", "optimizer"),
    [
        pytest.param("tf32", "adamw", marks=needs_gpu),
        ("bf16", "adamw"),
        ("fp16", "adamw"),
        ("bf16_params", "adamw"),
        pytest.param("bf16_params_stochastic", "adamwfp8", marks=needs_gpu),
    ],
)
def test_every_precision_trains(precision: str, optimizer: str, make_trial: MakeTrial) -> None:
    trial = make_trial(
        f"hardware={HARDWARE}", f"hardware.precision={precision}", f"optimizer={optimizer}", "budget.num_steps=220"
    )
    result = run(trial, on_measurement=lambda _: None)
    assert result.status is Status.COMPLETED, result.summary.get("traceback")
    assert result.summary["test_accuracy"] > 0.5


@needs_gpu
def test_products_are_rounded_where_that_is_asked_for_and_nowhere_else(make_trial: MakeTrial) -> None:
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(512, 512, generator=generator, dtype=torch.float64) for _ in range(2))
    errors = {}
    for precision in ("fp32", "tf32"):
        hardware = make_trial("hardware=cuda", f"hardware.precision={precision}").hardware
        with configured(hardware, resolve_device(hardware)):
            product = left.float().cuda() @ right.float().cuda()
        errors[precision] = (product.double().cpu() - left @ right).abs().max().item()
    assert errors["tf32"] > 20 * errors["fp32"]


@needs_gpu
def test_a_trial_that_needs_more_than_its_limit_is_out_of_memory_and_the_next_one_is_not(make_trial: MakeTrial) -> None:
    adamw = make_trial("optimizer=adamw").config["optimizer"]
    limited = run(Trial.from_config(of_task("Mlp", adamw, memory_limit_gb=0.5)), on_measurement=lambda _: None)
    assert limited.status is Status.OUT_OF_MEMORY
    free = run(Trial.from_config(of_task("Mlp", adamw)), on_measurement=lambda _: None)
    assert free.status is Status.COMPLETED
    assert free.summary["peak_bytes"] > 2**29


@needs_gpu
@pytest.mark.parametrize("card", ["rtx3060", "rtx4090", "a100_40gb", "a100_80gb", "h200"])
def test_a_gpu_stands_for_a_smaller_one_and_for_no_larger_one(card: str, make_trial: MakeTrial) -> None:
    hardware = make_trial(f"hardware={card}").hardware
    total_gb = torch.cuda.get_device_properties(0).total_memory / 2**30
    assert hardware.memory_limit_gb is not None
    if hardware.memory_limit_gb > 1.05 * total_gb:
        with pytest.raises(UsageError, match="memory_limit_gb"):
            resolve_device(hardware)
    else:
        assert resolve_device(hardware).type == "cuda"


@needs_gpu
@pytest.mark.filterwarnings("ignore")
def test_deterministic_trials_are_the_same_in_every_bit(make_trial: MakeTrial) -> None:
    overrides = ("hardware=cuda", "hardware.deterministic=true", "budget.num_steps=100")
    losses = [run(make_trial(*overrides), on_measurement=lambda _: None).summary["test_loss"] for _ in range(2)]
    assert losses[0] == losses[1]


@pytest.mark.filterwarnings("ignore")  # of the compiler, about itself
def test_compiled_trials_go_as_others_do(make_trial: MakeTrial) -> None:
    losses = []
    for is_compiled in (False, True):
        keys = ("hardware.compile_model", "hardware.compile_step")
        asked = (f"{key}={is_compiled}" for key in keys)
        trial = make_trial(f"hardware={HARDWARE}", *asked, "schedule=cosine", "budget.num_steps=44")
        result = run(trial, on_measurement=lambda _: None)
        assert result.status is Status.COMPLETED, result.summary.get("traceback")
        losses.append(result.summary["test_loss"])
    assert losses[1] == pytest.approx(losses[0], rel=0.01)


# Time


def test_the_phases_are_the_step(make_trial: MakeTrial) -> None:
    adamw, sgd = (make_trial(f"optimizer={name}").config["optimizer"] for name in ("adamw", "sgd"))
    reference, trial = (Trial.from_config(of_task("Mlp", chosen)) for chosen in (adamw, sgd))
    device = resolve_device(trial.hardware)
    with configured(trial.hardware, device):
        found = timing.measure(trial, reference, device, seconds=2.0)
    assert sum(spread.median for spread in found.phases.values()) == pytest.approx(found.step.median, rel=0.05)
    assert found.ratio.median < 1.0
    assert found.optimizer_ratio.median < found.ratio.median
    assert 0.0 < found.optimizer_share < 1.0


def test_a_block_takes_what_the_clock_on_the_wall_says(make_trial: MakeTrial) -> None:
    trial = Trial.from_config(of_task("Mlp", make_trial("optimizer=adamw").config["optimizer"]))
    device = resolve_device(trial.hardware)
    with configured(trial.hardware, device):
        task, optimizer = building.build(trial, device)
        course = timing.Course(task, optimizer, trial=trial, device=device)
        course.take(10)
        ratios = []
        for _ in range(5):
            start = perf_counter()
            block = course.take(50)  # waits for the device at its end
            ratios.append(block.seconds / (perf_counter() - start))
    assert math.isclose(sorted(ratios)[2], 1.0, rel_tol=0.05)
