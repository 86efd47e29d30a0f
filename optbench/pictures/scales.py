"""What an axis shows, and the numbers along it in plain characters: 0.001 and 1e-5, no superscripts."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from optbench.pictures.picture import Scale

WIDE_DECADES = 1.5
_LARGEST = 1e300
_UNITS = (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10))
_NICE = (1.0, 2.0, 5.0, 10.0)


@dataclass(frozen=True, kw_only=True)
class Extent:
    """The part of an axis that is shown.

    Attributes:
        low: at the left or lower edge.
        high: at the right or upper edge.
        scale: between them.
        is_whole: whether all values are whole numbers, so that no tick lies between two.
    """

    low: float
    high: float
    scale: Scale = "linear"
    is_whole: bool = False

    def at(self, fraction: float) -> float:
        """The value at this part of the way from `low` to `high`."""
        if self.scale == "log":
            return math.exp(math.log(self.low) + fraction * (math.log(self.high) - math.log(self.low)))
        return self.low + fraction * (self.high - self.low)

    def part(self, value: float) -> float:
        """How far the value is on the way from `low` to `high`: what `at` undoes."""
        if self.scale == "log":
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def clip(self, value: float) -> float:
        """The value, or the edge that it lies beyond."""
        return min(max(value, self.low), self.high)

    def widened(self, *, below: float = 0.0, above: float = 0.0) -> "Extent":
        """With these parts of its length more at the ends."""
        return Extent(low=self.at(-below), high=self.at(1.0 + above), scale=self.scale, is_whole=self.is_whole)

    def ticks(self, most: int) -> list[tuple[float, str]]:
        """Round values within, at most about so many, each as it is written."""
        if self.scale == "linear":
            return _linear_ticks(self, most)
        first, last = math.ceil(math.log10(self.low) - 1e-9), math.floor(math.log10(self.high) + 1e-9)
        decades = list(range(first, last + 1))
        if len(decades) >= 3 or (len(decades) == 2 and most < 4):
            stride = math.ceil(len(decades) / most)
            values = [10.0**power for power in decades if power % stride == 0]
        else:
            values = _between(self, factors=(1.0, 2.0, 5.0))
            if len(values) < 3:
                return _linear_ticks(self, most)
            if len(values) > most + 1:
                values = _between(self, factors=(1.0, 3.0))
        return [(value, plain(value)) for value in values]


def extent(values: Iterable[float], *, scale: Scale = "linear", margin: float = 0.05, is_whole: bool = False) -> Extent:
    """What shows all these values, with some room beyond them.

    Args:
        values: those that are not finite or beyond drawing are passed over, as is what a logarithm does not have.
        scale: of the axis.
        margin: at each end, as a part of the length.
        is_whole: whether all are whole numbers.
    """
    known = [value for value in values if abs(value) < _LARGEST and (scale == "linear" or value > 0.0)]
    low, high = (min(known), max(known)) if known else (1.0, 1.0)
    if scale == "log":
        if high <= low * 1.0001:
            low, high = low / 2.0, high * 2.0
    elif high - low <= 1e-9 * max(abs(low), abs(high)):
        half = 0.5 if is_whole else 0.1 * abs(low) or 1.0
        low, high = low - half, high + half
    return Extent(low=low, high=high, scale=scale, is_whole=is_whole).widened(below=margin, above=margin)


def fitting(values: Iterable[float]) -> Scale:
    """Logarithmic where all finite values are above zero and the largest is more than 30 times the smallest."""
    known = [value for value in values if math.isfinite(value)]
    if not known or min(known) <= 0.0:
        return "linear"
    return "log" if math.log10(max(known)) - math.log10(min(known)) > WIDE_DECADES else "linear"


def in_unit(largest: float) -> tuple[str, int]:
    """The unit in which bytes up to this many are written, and how many of them make it."""
    return next(((unit, size) for unit, size in _UNITS if largest >= size), ("bytes", 1))


def plain(value: float, *, digits: int = 6, is_padded: bool = False) -> str:
    """A number in few characters, without a plus sign or zeros in its exponent: 1000, 0.0003, 1e-5, 2.5e7.

    Args:
        value: to be written.
        digits: at most.
        is_padded: whether zeros at the end are kept, so that numbers beside each other are alike.
    """
    text = f"{value:#.{digits}g}" if is_padded else f"{value:.{digits}g}"
    mantissa, _, exponent = text.partition("e")
    mantissa = mantissa.removesuffix(".")
    return f"{mantissa}e{int(exponent)}" if exponent else mantissa


def _linear_ticks(shown: Extent, most: int) -> list[tuple[float, str]]:
    length = shown.high - shown.low
    rough = 0.8 * length / max(most, 1)
    power = math.floor(math.log10(rough))
    step = next(nice for one in _NICE if (nice := one * 10.0**power) >= rough * (1.0 - 1e-9))
    step = max(step, 1.0) if shown.is_whole else step
    first, last = math.ceil(shown.low / step - 1e-9), math.floor(shown.high / step + 1e-9)
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    values = [place * step for place in range(first, last + 1)]
    largest = max(map(abs, values), default=0.0)
    if digits > 4 or largest >= 1e6:
        needed = math.floor(math.log10(largest)) - math.floor(math.log10(step)) + 1 if largest else 1
        return [(value, plain(value, digits=max(4, needed))) for value in values]
    return [(value, f"{value + 0.0:.{digits}f}") for value in values]


def _between(shown: Extent, *, factors: Sequence[float]) -> list[float]:
    powers = range(math.floor(math.log10(shown.low)), math.ceil(math.log10(shown.high)) + 1)
    values = [factor * 10.0**power for power in powers for factor in factors]
    return [value for value in values if shown.low * (1.0 - 1e-9) <= value <= shown.high * (1.0 + 1e-9)]
