"""A GPU's energy counter, and how a GPU is found in NVIDIA's library."""

import sys
from types import SimpleNamespace

import pytest
import torch

from optbench import energy, nvml
from optbench.energy import Energy

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


class Library(SimpleNamespace):
    """Stands in for `pynvml`: one GPU, with this uuid and a counter."""

    class NVMLError(Exception):
        pass

    millijoules: int | None = 0
    driver: bool = True

    def nvmlInit(self) -> None:  # noqa: N802
        if not self.driver:
            raise self.NVMLError("Driver Not Loaded")

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:  # noqa: N802
        if uuid != "GPU-1234":
            raise self.NVMLError("Not Found")
        return "handle"

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: str) -> int:  # noqa: N802
        assert handle == "handle"
        if self.millijoules is None:
            raise self.NVMLError("Not Supported")
        return self.millijoules


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Library:
    library = Library()
    monkeypatch.setitem(sys.modules, "pynvml", library)  # type: ignore[arg-type]
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(uuid="1234"))
    return library


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    time = [0.0]
    monkeypatch.setattr(energy, "time", SimpleNamespace(monotonic=lambda: time[0]))
    return time


def test_the_energy_is_what_the_counter_went_on_by(library: Library, now: list[float]) -> None:
    library.millijoules = 5_000_000
    counter = Energy(GPU)
    assert counter.is_known
    with counter:
        library.millijoules += 700_500
        now[0] += 3.0
    assert counter.joules == pytest.approx(700.5)


def test_a_stretch_that_is_short_for_the_counter_has_no_figure(library: Library, now: list[float]) -> None:
    with Energy(GPU) as counter:
        library.millijoules = 100
        now[0] += 0.9 * energy.MIN_SECONDS
    assert counter.joules is None


def test_a_gpu_without_a_counter_has_no_figure(library: Library, now: list[float]) -> None:
    library.millijoules = None
    with Energy(GPU) as counter:
        now[0] += 3.0
    assert not counter.is_known
    assert counter.joules is None


@pytest.mark.usefixtures("library")
def test_a_cpu_has_no_counter() -> None:
    assert not Energy(CPU).is_known


@pytest.mark.usefixtures("library")
def test_a_gpu_is_found_by_what_torch_says_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    found = nvml.gpu(GPU)
    assert found is not None
    assert found.handle == "handle"
    assert found.ask("nvmlDeviceGetTotalEnergyConsumption") == 0
    assert found.ask("nvmlDeviceGetSomethingOfLater") is None
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(uuid="of a part"))
    assert nvml.gpu(GPU) is None


def test_without_the_package_or_the_driver_no_gpu_is_known(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    library.driver = False
    assert nvml.gpu(GPU) is None
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert nvml.gpu(GPU) is None
    assert not Energy(GPU).is_known
