"""The device of a trial, and what a trial sets for its whole process."""

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch

from optbench.errors import UsageError
from optbench.hardware import Hardware
from optbench.units import GIB

# A card is sold by the gibibyte and keeps a little for itself: a limit that much above what it has is what it has.
_ROUNDING = 1.05
_CUBLAS = "CUBLAS_WORKSPACE_CONFIG"


def resolve_device(hardware: Hardware) -> torch.device:
    """The device that the hardware config asks for.

    Raises:
        UsageError: it asks for a GPU and there is none, or one with more memory, or for what the device cannot do.
    """
    if hardware.device == "cuda" and not torch.cuda.is_available():
        raise UsageError(
            f"hardware.device=cuda, but torch {torch.__version__} on {platform.node()} finds no GPU.\n"
            "Use hardware=cpu or hardware=auto."
        )
    if hardware.device == "cuda" or (hardware.device == "auto" and torch.cuda.is_available()):
        device = torch.device("cuda", torch.cuda.current_device())
        _memory_fraction(hardware, device)
        return device
    if hardware.precision == "tf32":
        raise UsageError("hardware.precision=tf32: only GPUs round so. Use fp32 or bf16 on the CPU.")
    if hardware.memory_limit_gb is not None:
        raise UsageError(
            f"hardware.memory_limit_gb={hardware.memory_limit_gb:g}: it limits a GPU's memory, and this is the CPU."
        )
    return torch.device("cpu")


@contextmanager
def configured(hardware: Hardware, device: torch.device) -> Iterator[None]:
    """The process as the hardware config asks; what a trial changes in it is as it was for the next one."""
    with _isolated(), _compiling(hardware):
        torch.set_num_threads(hardware.num_threads)
        high = hardware.precision == "tf32"
        torch.set_float32_matmul_precision("high" if high else "highest")
        torch.backends.cudnn.allow_tf32 = high  # torch's default rounds convolutions and not products
        if hardware.deterministic:
            os.environ.setdefault(_CUBLAS, ":4096:8")  # what cuBLAS asks for, before it starts
            torch.use_deterministic_algorithms(True)
            torch.backends.cudnn.benchmark = False
        if device.type == "cuda":
            torch.cuda.set_per_process_memory_fraction(_memory_fraction(hardware, device), device)
        try:
            yield
        finally:
            if device.type == "cuda":
                torch.cuda.set_per_process_memory_fraction(1.0, device)


def _memory_fraction(hardware: Hardware, device: torch.device) -> float:
    """The part of the GPU's memory that may be taken."""
    if (limit_gb := hardware.memory_limit_gb) is None:
        return 1.0
    total_bytes = torch.cuda.get_device_properties(device).total_memory
    fraction = limit_gb * GIB / total_bytes
    if fraction > _ROUNDING:
        raise UsageError(
            f"hardware.memory_limit_gb={limit_gb:g}: this GPU has {total_bytes / GIB:.1f}, and cannot tell "
            "what fits into more.\n`optbench fit` predicts it without the card."
        )
    return min(fraction, 1.0)


@contextmanager
def _isolated() -> Iterator[None]:
    folder, dtype, has_grad = Path.cwd(), torch.get_default_dtype(), torch.is_grad_enabled()
    anomaly, benchmark = torch.is_anomaly_enabled(), torch.backends.cudnn.benchmark
    tf32 = torch.backends.cudnn.allow_tf32
    strict = torch.are_deterministic_algorithms_enabled()
    only_warns = torch.is_deterministic_algorithms_warn_only_enabled()
    precision, num_threads = torch.get_float32_matmul_precision(), torch.get_num_threads()
    workspace = os.environ.get(_CUBLAS)
    try:
        yield
    finally:
        torch.set_default_dtype(dtype)
        torch.set_default_device(None)
        torch.set_grad_enabled(has_grad)
        torch.autograd.set_detect_anomaly(anomaly)
        torch.use_deterministic_algorithms(strict, warn_only=only_warns)
        torch.set_float32_matmul_precision(precision)
        torch.backends.cudnn.benchmark = benchmark
        torch.backends.cudnn.allow_tf32 = tf32
        torch.set_num_threads(num_threads)
        if workspace is None:
            os.environ.pop(_CUBLAS, None)
        else:
            os.environ[_CUBLAS] = workspace
        with suppress(OSError):
            os.chdir(folder)


@contextmanager
def _compiling(hardware: Hardware) -> Iterator[None]:
    """Forget what was compiled for another trial: torch counts it, and after a few gives up without a word."""
    if hardware.compiles:
        torch.compiler.reset()
    try:
        yield
    finally:
        if hardware.compiles:
            torch.compiler.reset()
