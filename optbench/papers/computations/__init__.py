"""What is computed for a paper's cells, by optimizers themselves or by arithmetic: names as `compute:` gives them."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, get_args, get_origin, get_type_hints

import torch

from optbench.errors import UsageError, unknown
from optbench.papers.computations import (
    adafactor,
    adam,
    decay,
    descent,
    paths,
    presets,
    prodigy,
    radam,
    schedules,
    signs,
)
from optbench.papers.paper import Measure
from optbench.parsing import parse_list, parse_mapping, parse_value

MODULES = (adam, radam, paths, decay, adafactor, signs, prodigy, schedules, presets, descent)

# All that a module defines in public: keyword-only arguments, without defaults, and one float.
COMPUTATIONS: Mapping[str, Callable[..., float]] = MappingProxyType(
    {
        name: function
        for module in MODULES
        for name, function in vars(module).items()
        if inspect.isfunction(function) and function.__module__ == module.__name__ and not name.startswith("_")
    }
)


def compute(measure: Measure) -> float:
    """Do the computation that a measure names, with its arguments.

    Raises:
        UsageError: as for `check`; or an optimizer or a package that it needs is not there.
    """
    function, arguments = _called(measure)
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)  # for tensors as small as these more only wait for each other
    try:
        return function(**arguments)
    finally:
        torch.set_num_threads(num_threads)


def check(measure: Measure) -> None:
    """Check that there is such a computation, and that it takes these arguments.

    Raises:
        UsageError: there is none of that name, or an argument is unknown, missing or of the wrong type.
    """
    _called(measure)


def _called(measure: Measure) -> tuple[Callable[..., float], dict[str, Any]]:
    name = measure.compute or ""
    if name not in COMPUTATIONS:
        raise unknown("computation", name, COMPUTATIONS)
    function = COMPUTATIONS[name]
    hints = {key: hint for key, hint in get_type_hints(function).items() if key != "return"}
    for key in measure.arguments:
        if key not in hints:
            raise unknown("argument", str(key), hints, where=f"for compute: {name}")
    for key in hints:
        if key not in measure.arguments:
            raise UsageError(f"compute: {name} needs arguments.{key}.\nIt takes: {', '.join(hints)}.")
    return function, {
        key: _argument(value, hints[key], where=f"compute: {name}: arguments.{key}")
        for key, value in measure.arguments.items()
    }


def _argument(value: Any, hint: Any, *, where: str) -> Any:
    """The value as a function takes it: plain, a mapping as it stands, or a list of values of one type."""
    if get_origin(hint) is Mapping:
        return parse_mapping(value, where=where)
    if get_origin(hint) is Sequence:
        (item,) = get_args(hint)
        return [parse_value(one, item, where=where) for one in parse_list(value, where=where)]
    return parse_value(value, hint, where=where)
