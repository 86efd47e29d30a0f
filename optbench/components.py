"""From a component to the object it names: look up its target, check its arguments, call it."""

import functools
import importlib.metadata
import inspect
import pkgutil
import re
import sys
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from typing import Any

from optbench.component import Component
from optbench.errors import UsageError, unknown
from optbench.imports import quiet
from optbench.schedule import Schedule


def locate(component: Component, *, group: str) -> Callable[..., Any]:
    """The callable that `_target_` names.

    Raises:
        UsageError: it cannot be imported; says which part of the name failed.
    """
    if component.target == "???":
        raise UsageError(f"{group}={component.name}: name its class, as in {group}._target_=my_package.MyClass.")
    try:
        target = resolve(component.target)
    except (ImportError, AttributeError, ValueError) as error:
        raise UsageError(
            f"{group} {component.name!r}: _target_={component.target} cannot be imported ({error}).\n{_advice(error)}"
        ) from error
    if not callable(target):
        raise UsageError(f"{group} {component.name!r}: _target_={component.target} is not a class or function.")
    return target  # type: ignore[no-any-return]


def resolve(target: str) -> Any:
    """The object of this dotted name, without what libraries log about themselves while they are imported.

    Raises:
        ImportError: there is no such module.
        AttributeError: it has no such name.
        ValueError: this is no dotted name.
    """
    package, _, name = target.rpartition(".")
    if package in sys.modules and hasattr(sys.modules[package], name):  # a thousandth of the time of a look for modules
        return getattr(sys.modules[package], name)
    with quiet():
        return pkgutil.resolve_name(target)


def _advice(error: Exception) -> str:
    """What to do about a target that cannot be imported."""
    missing = _canonical(error.name.partition(".")[0]) if isinstance(error, ModuleNotFoundError) and error.name else ""
    for extra, packages in sorted(_extras().items(), key=lambda item: (item[0] != "zoo", item[0])):
        if missing in packages:
            return f"Install the extra that has it: pip install 'optbench[{extra}]'."
    return "Install the package that it names, or correct the dotted name."


def _extras() -> dict[str, set[str]]:
    """The packages of each of optbench's extras, by their canonical names."""
    found: dict[str, set[str]] = {}
    with suppress(importlib.metadata.PackageNotFoundError):
        for line in importlib.metadata.requires("optbench") or []:
            name, extra = re.match(r"[\w.-]+", line), re.search(r"extra == [\"'](\w+)", line)
            if name and extra:
                found.setdefault(extra.group(1), set()).add(_canonical(name.group()))
    return found


def _canonical(package: str) -> str:
    """A package's name in the one spelling by which two are compared."""
    return re.sub(r"[-_.]+", "-", package).lower()


def check_arguments(component: Component, *, group: str, supplied: Collection[str]) -> None:
    """Check that the target accepts every argument given, and that none it needs is missing.

    Args:
        component: what is to be built.
        group: its group's name, for the message.
        supplied: parameters that optbench itself fills in.

    Raises:
        UsageError: names the argument, the nearest one that is accepted, and all of them.
    """
    parameters = signature(component, group=group)
    accepts_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    named = {
        name: parameter
        for name, parameter in parameters.items()
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY) and name not in supplied
    }
    for key in component.arguments:
        if key not in named and not accepts_any:
            raise unknown("key", key, named, where=f"for {component.target}", prefix=f"{group}.")
    for name, parameter in named.items():
        if parameter.default is parameter.empty and name not in component.arguments:
            raise UsageError(f"{component.name} ({component.target}) needs {group}.{name}.")


def signature(component: Component, *, group: str) -> Mapping[str, inspect.Parameter]:
    """The parameters of the target, by name.

    Raises:
        UsageError: it cannot be imported, or does not say what it accepts.
    """
    target = locate(component, group=group)
    try:
        return _parameters(target)
    except ValueError as error:
        raise UsageError(f"{group} {component.name!r}: {component.target} does not say what it accepts.") from error


@functools.lru_cache(maxsize=1024)
def _parameters(target: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(target).parameters


def build(component: Component, *, group: str, **supplied: Any) -> Any:
    """Call the target with its arguments and with what optbench supplies."""
    check_arguments(component, group=group, supplied=supplied)
    arguments = {key: tuple(value) if isinstance(value, list) else value for key, value in component.arguments.items()}
    return locate(component, group=group)(**arguments, **supplied)


def build_schedule(component: Component) -> Schedule:
    """The schedule with its arguments bound.

    Raises:
        UsageError: it refuses them.
    """
    try:
        schedule: Schedule = build(component, group="schedule")
    except TypeError as error:  # a null, where the file has a number
        raise UsageError(f"schedule {component.name!r} refuses {dict(component.arguments)}: {error}.") from error
    return schedule
