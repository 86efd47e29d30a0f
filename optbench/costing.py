"""Costs of the steps of a sweep: which are missing, measuring them one after another, and `optbench cost`."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.markup import escape

from optbench import machine
from optbench.asking import StoppedError
from optbench.console import console, warn
from optbench.cost import Cost
from optbench.costs import Costs, cost_id
from optbench.errors import Interrupted, UsageError
from optbench.probing import Config, Probes
from optbench.secrets import Checker, check_config
from optbench.trial import Trial


def missing(configs: Iterable[Config], costs: Costs) -> list[Config]:
    """One config for each cost that is not there, or was measured on what is not here now.

    Args:
        configs: of trials.
        costs: those that are there.
    """
    distinct = {cost_id(config): config for config in configs}
    return [config for key, config in distinct.items() if _is_stale(costs.read(key), config)]


def measure(
    configs: Sequence[Config], *, costs: Costs, probes: Probes, seconds: float, after_trials: bool = False
) -> None:
    """Measure the cost of each config and keep it; a signal ends this early, and what was measured is kept.

    Args:
        configs: of trials.
        costs: where they are kept.
        probes: who measures.
        seconds: of timing, for each.
        after_trials: whether what goes wrong is only said, since there is more to be shown than costs.

    Raises:
        UsageError: all configs are wrong; of some it is only said.
        OSError: the store cannot be written to.
    """
    page = console()
    mistakes: list[Exception] = []
    for number, config in enumerate(configs, start=1):
        what = escape(
            f"cost {number}/{len(configs)}: a step of {config['optimizer']['name']} on {config['task']['name']}"
        )
        if not page.is_terminal:
            page.print(what, soft_wrap=True)
        with page.status(what):
            try:
                costs.write(probes.cost(config, seconds=seconds))
            except StoppedError:
                return
            except (UsageError, OSError) as error:
                mistakes.append(error)
                if after_trials or isinstance(error, UsageError):
                    warn(f"no cost of {config['optimizer']['name']} on {config['task']['name']}: {error}")
                else:
                    raise
    if mistakes and len(mistakes) == len(configs) and not after_trials:
        raise mistakes[0]


def show_costs(configs: Iterable[Mapping[str, Any]], *, allowed: Sequence[str] = ()) -> int:
    """Measure what a step of each of these trials costs, and show it.

    Args:
        configs: composed and resolved.
        allowed: packages that the command line allows configs to call, besides those of the catalogue.

    Returns:
        How many costs lack a measurement.

    Raises:
        UsageError: the configs are wrong.
        Interrupted: a signal came; what was measured is kept.
    """
    from optbench import claims as claiming
    from optbench import cost_pages
    from optbench.signals import Signals
    from optbench.store import Store
    from optbench.sweep import Settings

    first, trials = checked(configs)
    claiming.claims(first.get("claims"))  # a mistake shows before anything is measured
    settings = Settings.from_config(first)
    if settings.cost_seconds is None:
        raise UsageError("cost.seconds=null leaves costs out. Give the seconds of timing, as in cost.seconds=2.0.")
    store = Store(settings.results, settings.name)
    costs = Costs(store)
    distinct = {cost_id(trial.config): trial.config for trial in trials}
    signals = Signals(seconds=settings.limits.sweep_seconds)
    try:
        with signals:
            measure(
                list(distinct.values()),
                costs=costs,
                probes=Probes(allowed=allowed, interruption=signals),
                seconds=settings.cost_seconds,
            )
    except OSError as error:
        raise UsageError(f"{store.folder} cannot be written to: {error}.") from error
    found = [cost for key in distinct if (cost := costs.read(key)) is not None]
    cost_pages.show(found, store=store, claims=first.get("claims"))
    if signals.exit_code is not None:
        raise Interrupted(signals.exit_code)
    return len(distinct) - sum(cost.memory is not None and cost.time is not None for cost in found)


def checked(configs: Iterable[Config]) -> tuple[Config, list[Trial]]:
    """The first config, and the trials of all.

    Raises:
        UsageError: there is none, or one is wrong.
    """
    from optbench.sweep import same

    waiting = iter(configs)
    first = next(waiting, None)
    if first is None:
        raise UsageError("the overrides make no trial: a list of values is empty.")
    check_config(first)
    checker = Checker()
    trials = []
    for config in itertools.chain([first], waiting):
        checker.check(config)
        trials.append(Trial.from_config(same(config, first)))
    return first, trials


def _is_stale(cost: Cost | None, config: Config) -> bool:
    if cost is None:
        return True
    found = cost.environment
    versions: Mapping[str, Any] = found.get("packages", {})
    if any(versions.get(name) != machine.version(name) for name in machine.packages_of(config["optimizer"])):
        return True
    return not machine.is_here(str(found.get("device")), config["hardware"]["device"])
