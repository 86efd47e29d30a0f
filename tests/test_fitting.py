"""The largest minibatch that fits, and how many predictions it takes to find it."""

import dataclasses
from collections.abc import Callable

import pytest

from optbench import fitting
from optbench.cost import Memory
from optbench.errors import UsageError
from optbench.fitting import MAX_BATCH_SIZE, fit
from optbench.prediction import NotPredictable, predict
from optbench.trial import Trial
from tests.models import trial

Peak = Callable[[int], int]


@pytest.fixture(scope="module")
def memory() -> Memory:
    return predict(trial("Mlp", batch_size=4))


class Stand:
    """Predictions that cost nothing, of a peak that is a function of the batch size."""

    def __init__(self, peak: Peak, memory: Memory, *, num_images: int | None = None) -> None:
        self.peak = peak
        self.memory = memory
        self.num_images = num_images
        self.sizes: list[int] = []

    def check(self, asked: Trial) -> None:
        if self.num_images is not None and asked.task.arguments["batch_size"] > self.num_images:
            raise UsageError("there are fewer images")

    def predict(self, asked: Trial) -> Memory:
        self.check(asked)
        size = asked.task.arguments.get("batch_size", 1)
        self.sizes.append(size)
        return dataclasses.replace(self.memory, peak_bytes=self.peak(size))


MakeStand = Callable[..., Stand]


@pytest.fixture
def stand(memory: Memory, monkeypatch: pytest.MonkeyPatch) -> MakeStand:
    def make(peak: Peak, *, num_images: int | None = None) -> Stand:
        made = Stand(peak, memory, num_images=num_images)
        monkeypatch.setattr(fitting, "predict", made.predict)
        monkeypatch.setattr(fitting, "check", made.check)
        return made

    return make


PEAKS: dict[str, Peak] = {
    "a line": lambda size: 1_000 + 10 * size,
    "a line with a floor": lambda size: max(40_000, 1_000 + 37 * size),
    "two lines": lambda size: 1_000 + 10 * size + 30 * max(0, size - 777),
    "leaps": lambda size: 1_000 + 80 * -(-size // 8),
    "a curve": lambda size: 1_000 + size * size // 50,
}


@pytest.mark.parametrize("name", PEAKS)
@pytest.mark.parametrize("asked", [1, 64, 5_000])
@pytest.mark.parametrize("memory_bytes", [1_700, 45_000, 1_000_000])
def test_the_largest_is_exact_whatever_the_peak_looks_like(
    name: str, asked: int, memory_bytes: int, stand: MakeStand
) -> None:
    peak = PEAKS[name]
    made = stand(peak)
    found = fit(trial("Mlp", batch_size=asked), memory_bytes=memory_bytes)
    largest = found.largest_batch_size
    assert largest is not None
    assert largest == 0 or peak(largest) <= memory_bytes
    assert peak(largest + 1) > memory_bytes
    assert found.fits == (peak(asked) <= memory_bytes)
    assert found.limited_by == "memory"
    assert found.reason is None
    assert found.predictions == {size: peak(size) for size in sorted(made.sizes)}
    assert len(made.sizes) == len(set(made.sizes)) <= 20


@pytest.mark.parametrize(("asked", "memory_bytes"), [(64, 1_000_000), (64, 1_005), (64, 1_700), (5_000, 40_000)])
def test_a_line_takes_four_predictions_at_most(asked: int, memory_bytes: int, stand: MakeStand) -> None:
    made = stand(PEAKS["a line"])
    fit(trial("Mlp", batch_size=asked), memory_bytes=memory_bytes)
    assert len(made.sizes) <= 4


def test_a_task_with_fewer_images_is_limited_by_them(stand: MakeStand) -> None:
    made = stand(PEAKS["a line"], num_images=1_437)
    found = fit(trial("Mlp", batch_size=64), memory_bytes=1_000_000)
    assert (found.largest_batch_size, found.limited_by) == (1_437, "data")
    assert len(made.sizes) <= 4


def test_memory_may_be_the_limit_below_the_number_of_images(stand: MakeStand) -> None:
    stand(PEAKS["two lines"], num_images=1_437)
    found = fit(trial("Mlp", batch_size=64), memory_bytes=30_000)
    assert found.limited_by == "memory"
    assert found.largest_batch_size == (30_000 - 1_000 + 30 * 777) // 40


def test_where_not_even_one_fits_the_largest_is_none(stand: MakeStand) -> None:
    stand(PEAKS["a line"])
    found = fit(trial("Mlp", batch_size=64), memory_bytes=1_000)
    assert (found.fits, found.largest_batch_size, found.limited_by) == (False, 0, "memory")


def test_a_minibatch_is_not_smaller_than_its_parts(stand: MakeStand) -> None:
    made = stand(PEAKS["a line"])
    asked = trial("Mlp", **{"batch_size": 64, "hardware.num_micro_batches": 8})
    assert fit(asked, memory_bytes=1_050).largest_batch_size == 0
    assert min(made.sizes) >= 8


def test_memory_that_is_no_limit_is_said_to_be_none(stand: MakeStand) -> None:
    stand(lambda _: 1_000)
    found = fit(trial("Mlp", batch_size=64), memory_bytes=1_000_000)
    assert (found.fits, found.largest_batch_size, found.limited_by) == (True, None, None)
    assert str(MAX_BATCH_SIZE) in str(found.reason)


def test_a_task_without_a_batch_size_fits_or_does_not(stand: MakeStand) -> None:
    stand(PEAKS["a line"])
    asked = trial("Mlp", batch_size=64)
    whole = dataclasses.replace(asked, task=dataclasses.replace(asked.task, arguments={}))
    found = fit(whole, memory_bytes=1_000_000)
    assert found.fits
    assert found.largest_batch_size is None
    assert found.reason == "task=mlp has no task.batch_size"


def test_another_batch_size_that_is_not_predictable_costs_the_largest_alone(
    stand: MakeStand, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = stand(PEAKS["a line"])

    def predict_one(asked: Trial) -> Memory:
        if made.sizes:
            raise NotPredictable("its numbers are not there")
        return made.predict(asked)

    monkeypatch.setattr(fitting, "predict", predict_one)
    found = fit(trial("Mlp", batch_size=64), memory_bytes=1_700)
    assert (found.fits, found.largest_batch_size, found.limited_by) == (True, None, None)
    assert found.reason == "another task.batch_size than 64 is not predictable: its numbers are not there"
    assert found.predictions == {64: 1_640}


def test_the_largest_of_a_real_task_is_exact() -> None:
    asked = trial("Mlp", batch_size=16)
    found = fit(asked, memory_bytes=4_000_000)
    largest = found.largest_batch_size
    assert largest is not None
    assert found.predictions[largest] <= 4_000_000 < found.predictions[largest + 1]
    assert found.predicted == predict(asked)
    assert len(found.predictions) <= 6


def test_a_real_task_with_few_images_is_limited_by_them() -> None:
    found = fit(trial("Mlp", **{"batch_size": 16, "task.num_images": 100}), memory_bytes=4_000_000)
    assert (found.largest_batch_size, found.limited_by) == (100, "data")
