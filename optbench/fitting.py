"""Whether a step would fit into a given memory, and with how large a minibatch: predicted, with nothing run."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from optbench.cost import Memory
from optbench.errors import UsageError
from optbench.prediction import NotPredictable, check, predict
from optbench.trial import Trial

# The task's argument that is varied.
BATCH_SIZE = "batch_size"
# Beyond it nothing is asked: a device is then not limited by its memory.
MAX_BATCH_SIZE = 2**24
# Lines lead there within a few predictions; where the peak grows in leaps, every other guess is the middle after that.
MAX_BY_LINE = 5
# A factor between two batch sizes from which on it is better to take factors than differences.
FAR = 4


@dataclass(frozen=True, kw_only=True)
class Fit:
    """What would fit.

    Attributes:
        predicted: of a step with the asked batch size.
        fits: whether its peak is within the memory.
        largest_batch_size: that fits; 0 where none does, None where nobody can tell.
        limited_by: what forbids one more; None where there is no largest one.
        reason: why there is no largest batch size; None where there is one.
        predictions: the peak in bytes of each batch size that was gone through, in order.
    """

    predicted: Memory
    fits: bool
    largest_batch_size: int | None
    limited_by: Literal["memory", "data"] | None
    reason: str | None
    predictions: Mapping[int, int]


def fit(trial: Trial, *, memory_bytes: int) -> Fit:
    """Whether a step of the trial would fit, and the largest minibatch that does.

    The peak is taken to grow with the batch size. It changes things in the whole process for good.

    Args:
        trial: what would be trained, and how.
        memory_bytes: what a step may take.

    Raises:
        NotPredictable: the asked step is not, see `optbench.prediction.predict`.
        UsageError: a setting is wrong.
    """
    predicted = predict(trial)
    asked = trial.task.arguments.get(BATCH_SIZE)
    search = _Search(trial, memory_bytes=memory_bytes)
    largest, reason, limited_by = None, None, None
    if type(asked) is not int or asked < 1:
        reason = f"task={trial.task.name} has no task.{BATCH_SIZE}"
    else:
        search.peaks[asked] = predicted.peak_bytes
        try:
            largest = search.largest()
            limited_by = None if largest is None else search.limited_by
            reason = f"even {MAX_BATCH_SIZE} would fit: the memory is no limit" if largest is None else None
        except NotPredictable as error:  # the asked size was predictable, and that stands
            reason = f"another task.{BATCH_SIZE} than {asked} is not predictable: {error}"
    return Fit(
        predicted=predicted,
        fits=predicted.peak_bytes <= memory_bytes,
        largest_batch_size=largest,
        limited_by=limited_by,
        reason=reason,
        predictions=dict(sorted(search.peaks.items())),
    )


class _Search:
    """Looks for the largest batch size that fits with few predictions, since one may take half a minute.

    Attributes:
        peaks: of each batch size gone through.
        limited_by: what forbids the next one.
    """

    def __init__(self, trial: Trial, *, memory_bytes: int) -> None:
        self.peaks: dict[int, int] = {}
        self.limited_by: Literal["memory", "data"] = "memory"
        self._trial = trial
        self._memory_bytes = memory_bytes
        self._end = MAX_BATCH_SIZE + 1  # refused, this and all above it

    def largest(self) -> int | None:
        """The largest that fits, 0 where none does, and None where there is no end."""
        least = self._trial.hardware.num_micro_batches
        while True:
            low = max((size for size, peak in self.peaks.items() if peak <= self._memory_bytes), default=least - 1)
            high = min((size for size, peak in self.peaks.items() if peak > self._memory_bytes), default=self._end)
            if high <= low + 1:
                break
            size = min(max(self._guess(low, high), low + 1), high - 1)
            try:
                self.peaks[size] = predict(self._with(size)).peak_bytes
            except UsageError:
                self._end = self._first_refused(max(self.peaks), size)
        if low == MAX_BATCH_SIZE:
            return None
        self.limited_by = "data" if high == self._end and high not in self.peaks else "memory"
        return 0 if low < least else low

    def _guess(self, low: int, high: int) -> int:
        """The next batch size to go through, which is then brought between the two.

        A peak is most often the largest of several lines. Then the line between the largest size that fits and the
        smallest that does not is above it, and the line through two sizes on one side is below it.
        """
        fitting = sorted(size for size, peak in self.peaks.items() if peak <= self._memory_bytes)
        others = sorted(self.peaks.keys() - set(fitting))
        count = len(self.peaks)
        if count > MAX_BY_LINE and count % 2 == 0:
            return math.isqrt(low * high) if high > FAR * low else (low + high) // 2
        if fitting and others and not (len(others) > 1 and count // 2 % 2):
            return self._crossing(fitting[-1], others[0])
        if len(others) > 1:
            return self._crossing(*others[:2])
        if len(fitting) > 1:
            return self._crossing(*fitting[-2:])
        return 2 * low if fitting else high // 2

    def _crossing(self, first: int, second: int) -> int:
        """Where the line through two peaks meets the memory; far ahead, where it does not rise."""
        slope = (self.peaks[second] - self.peaks[first]) / (second - first)
        if slope <= 0:
            return FAR**2 * second
        return first + math.floor((self._memory_bytes - self.peaks[first]) / slope)

    def _first_refused(self, accepted: int, refused: int) -> int:
        """The smallest batch size that the task refuses."""
        while refused > accepted + 1:
            middle = (accepted + refused) // 2
            try:
                check(self._with(middle))
                accepted = middle
            except UsageError:
                refused = middle
        return refused

    def _with(self, batch_size: int) -> Trial:
        task = self._trial.task
        return replace(self._trial, task=replace(task, arguments={**task.arguments, BATCH_SIZE: batch_size}))
