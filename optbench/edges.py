"""Where the best setting of an optimizer lies at the end of what was tried, and the command that tries more."""

import math
import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from optbench.contest import Edge, Side
from optbench.settings import spelt
from optbench.tables import Row

NUM_NEW = 2  # values beyond the end
# Keys that go over orders of magnitude, so that the next value is a multiple.
_RATES = ("lr", "weight_decay")
_SEARCHES = ("random", "optuna")

# The overrides that a trial was asked with, by its id; None where they are not known.
Overrides = Callable[[str], Sequence[str] | None]


def edges(rows: Sequence[Row], overrides: Overrides) -> list[Edge]:
    """The edges of an optimizer's best setting.

    An edge is a number of the optimizer whose best value is the lowest or the highest of those tried. 0 is none,
    since nothing is below.

    Args:
        rows: the optimizer's settings on one task, the best first.
        overrides: of trials.
    """
    tried: dict[str, set[float]] = {}
    for row in rows:
        for key, value in _numbers(row.config["optimizer"], prefix="optimizer."):
            tried.setdefault(key, set()).add(value)
    best = dict(_numbers(rows[0].config["optimizer"], prefix="optimizer."))
    found = []
    for key, value in best.items():
        values = sorted(tried[key])
        if len(values) < 2 or value == 0.0 or value not in (values[0], values[-1]):
            continue
        side: Side = "lowest" if value == values[0] else "highest"
        command = _command(rows[0], key, values=values, side=side, overrides=overrides(rows[0].ids[0]))
        found.append(Edge(key=key, value=value, side=side, tried=values, command=command))
    return found


def _numbers(config: Mapping[str, Any], *, prefix: str) -> Iterator[tuple[str, float]]:
    """The numbers of an optimizer, those that only describe it aside."""
    for name, value in config.items():
        if isinstance(value, Mapping) and name == "companion":
            yield from _numbers(value, prefix=f"{prefix}{name}.")
        elif isinstance(value, (int, float)) and not isinstance(value, bool) and name != "state_bytes_per_parameter":
            yield f"{prefix}{name}", float(value)


def _command(row: Row, key: str, *, values: Sequence[float], side: Side, overrides: Sequence[str] | None) -> str | None:
    """The command that the best setting came from, with values beyond the edge for this key."""
    if overrides is None or key.rpartition(".")[2] not in _RATES:
        return None
    method = next((line.partition("=")[2] for line in overrides if _key(line) == "sweep"), "default")
    if method == "zip":
        return None
    positive = [value for value in values if value > 0.0]
    is_low = side == "lowest"
    end = positive[0] if is_low else positive[-1]
    if method in _SEARCHES:
        low, high = (end / 10.0, end) if is_low else (end, end * 10.0)
        beyond = f"{key}=tag(log, interval({_plain(low)}, {_plain(high)}))"
    else:
        factor = _factor(positive, is_low=is_low)
        new = [end * factor ** (step if not is_low else -step) for step in range(1, NUM_NEW + 1)]
        beyond = f"{key}={','.join(_plain(value) for value in new)}"
    name = str(row.config["optimizer"]["name"])
    kept = [_of_one(line, name) for line in overrides if _key(line) != key]
    return shlex.join(["optbench", "sweep", *kept, beyond])


def _factor(positive: Sequence[float], *, is_low: bool) -> float:
    """The ratio of the two values at the edge, or half a decade where there is one."""
    if len(positive) < 2:
        return math.sqrt(10.0)
    low, high = positive[:2] if is_low else positive[-2:]
    return high / low


def _of_one(line: str, name: str) -> str:
    """The override; where it lists optimizers, with this one alone."""
    if _key(line) != "optimizer":
        return line
    choice = next(
        (one for one in re.split(r"[,\s]+", line.partition("=")[2]) if one == name or one.endswith(f"/{name}")), None
    )
    return line if choice is None else f"optimizer={choice}"


def _key(line: str) -> str:
    return line.lstrip("+~").partition("=")[0]


def _plain(value: float) -> str:
    """A number in three digits and without an exponent, as configs write it."""
    text = f"{value:.3g}"
    if "e" not in text:
        return text
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{float(text):.{digits}f}".rstrip("0").rstrip(".") if digits else f"{float(text):.0f}"


def words(found: Edge) -> str:
    """The edge in words."""
    return f"{found.key}={spelt(found.value)} is the {found.side} of {len(found.tried)} tried"
