"""What is installed here, and what this machine has: found without torch, so that planning need not wait for it."""

import csv
import functools
import importlib.metadata
import importlib.util
import os
import platform
import re
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Those whose versions are stored with every result.
PACKAGES = (
    "optbench",
    "torch",
    "numpy",
    "hydra-core",
    "omegaconf",
    "bitsandbytes",
    "came-pytorch",
    "dadaptation",
    "lion-pytorch",
    "prodigyopt",
    "pytorch_optimizer",
    "schedulefree",
    "scikit-learn",
    "torchao",
    "transformers",
)
_CGROUPS = Path("/sys/fs/cgroup")


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """A GPU that may be used.

    Attributes:
        name: of its model, as torch calls it, too.
        total_bytes: of its memory.
    """

    name: str
    total_bytes: int


@functools.cache
def version(package: str) -> str | None:
    """The version of a package that is installed; None where it is not."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def packages_of(optimizer: Mapping[str, Any]) -> list[str]:
    """The packages whose versions matter most to a trial: optbench, torch, and the optimizer's own.

    Args:
        optimizer: its config. A package that is not among `PACKAGES` is left out.
    """
    parts = [optimizer, optimizer.get("companion") or {}]
    modules = {"optbench", "torch", *(str(part.get("_target_", "")).partition(".")[0] for part in parts)}
    return [package for package in PACKAGES if package.replace("-", "_").lower() in modules]


@functools.cache
def commit() -> str | None:
    """The commit of optbench's own source, where it runs from a checkout."""
    return (git("rev-parse", "HEAD") or None) if git("ls-files", "__init__.py") else None


def git(*arguments: str) -> str:
    """What git answers in the folder of optbench's source; empty where it does not."""
    with suppress(OSError, subprocess.TimeoutExpired):
        asked = ["git", "-C", str(Path(__file__).parent), *arguments]
        answer = subprocess.run(asked, capture_output=True, text=True, timeout=10)
        return answer.stdout.strip() if answer.returncode == 0 else ""
    return ""


@functools.cache
def cpu_name() -> str:
    """The model of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


@functools.cache
def gpus() -> tuple[Gpu, ...]:
    """The GPUs that torch would find, as nvidia-smi tells; none where torch is installed without CUDA."""
    if not torch_has_cuda():
        return ()
    asked = ["nvidia-smi", "--query-gpu=index,uuid,name,memory.total", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(asked, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return ()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    chosen = None if visible is None else [name.strip() for name in visible.split(",") if name.strip()]
    found = []
    for line in csv.reader(answer.stdout.splitlines() if answer.returncode == 0 else (), skipinitialspace=True):
        with suppress(ValueError):  # a GPU may tell its memory as [N/A]
            index, uuid, name, mebibytes = line
            if chosen is None or index in chosen or any(uuid.startswith(prefix) for prefix in chosen):
                found.append(Gpu(name=name, total_bytes=int(mebibytes) * 2**20))
    return tuple(found)


@functools.cache
def device_names(asked: str) -> frozenset[str]:
    """The devices that a trial may meet here.

    Args:
        asked: its `hardware.device`: auto, cpu or cuda.
    """
    names = frozenset() if asked == "cpu" else frozenset(gpu.name for gpu in gpus())
    return names if names or asked == "cuda" else frozenset({cpu_name()})


def is_here(device: str, asked: str) -> bool:
    """Whether this is a device that a trial may meet here; torch adds the slice to the name of a divided GPU."""
    return any(device == name or device.startswith(f"{name} MIG ") for name in device_names(asked))


def available_bytes() -> int | None:
    """The memory that programs may still take: what the system has left, or this control group, if that is less."""
    left = [_number_in(Path("/proc/meminfo"), "MemAvailable", unit=1024)]
    for limit, usage, cache in _memory_limits():
        most, used = _number_in(limit), _number_in(usage)
        if most is not None and used is not None:
            left.append(most - used + (_number_in(cache, "(?:total_)?inactive_file") or 0))
    return min((number for number in left if number is not None), default=None)


def _memory_limits() -> Iterator[tuple[Path, Path, Path]]:
    """Files with the limit, the use, and the kinds of use of memory: of this control group and of those above it."""
    with suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, name = line.split(":", 2)
            kind = "v1" if "memory" in controllers.split(",") else "v2" if not controllers else None
            root = _CGROUPS / "memory" if kind == "v1" else _CGROUPS
            names = (
                ("memory.limit_in_bytes", "memory.usage_in_bytes") if kind == "v1" else ("memory.max", "memory.current")
            )
            folder = root / name.lstrip("/")
            for place in (folder, *folder.parents) if kind else ():
                if place.is_relative_to(root):
                    yield place / names[0], place / names[1], place / "memory.stat"


def _number_in(path: Path, name: str | None = None, *, unit: int = 1) -> int | None:
    """The number in a file, or that after this name in it."""
    with suppress(OSError, ValueError):
        text = path.read_text()
        if name is None:
            return int(text) * unit
        if found := re.search(rf"^{name}:?\s+(\d+)", text, re.MULTILINE):
            return int(found.group(1)) * unit
    return None


@functools.cache
def torch_has_cuda() -> bool:
    """Read from torch's own file, since importing it takes a second."""
    with suppress(ImportError, OSError, ValueError):
        found = importlib.util.find_spec("torch")
        if found is not None and found.origin is not None:
            text = Path(found.origin).with_name("version.py").read_text()
            return re.search(r"^cuda\b[^=]*=\s*['\"]", text, re.MULTILINE) is not None
    return False
