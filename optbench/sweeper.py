"""The Hydra sweeper: hands overrides to what composes trials, and trials to what carries them out.

Hydra's own sweeper composes every config twice, checks overrides against the default optimizer, and has no notion of
a finished trial. This one gets the overrides as they were typed.
"""

import pkgutil
import re
import sys
import types
from collections.abc import Sequence
from typing import Any

from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from optbench.compose import Composer
from optbench.sweep import carry_out, search

PLUGIN = "hydra_plugins.optbench"
ALLOW = "allow="
# What is done with configs besides running them, by the verb; imported then, so that a mistake need not wait for it.
_WORK = {
    "plan": "optbench.overview:show_plan",
    "cost": "optbench.costing:show_costs",
    "fit": "optbench.fit_pages:show_fit",
}


class OptbenchSweeper(Sweeper):
    """`hydra/sweeper: optbench`. Registered before `hydra.main`, so that no plugin has to be discovered.

    What stands below passes between this class and the command line, which Hydra stands between: Hydra would
    check the overrides of a sweep against the default config, where other optimizers' keys do not exist.
    """

    __module__ = PLUGIN

    arguments: Sequence[str] = ()
    one_trial: bool = False
    num_failed: int = 0
    verb: str | None = None
    command: Sequence[str] = ()

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep what composes configs."""
        del task_function
        self._loader = hydra_context.config_loader
        self._hydra_overrides = list(config.hydra.overrides.hydra)
        self._config_name = str(config.hydra.job.config_name)

    def sweep(self, arguments: list[str]) -> None:
        """Do with the configs what the verb asks: without one, run what is missing and show the table.

        Raises:
            UsageError: nothing has been trained.
        """
        del arguments  # Hydra's: without the overrides of the sweep
        given, prefixes = split_allowed(type(self).arguments)
        composer = Composer(self._loader, self._hydra_overrides, config_name=self._config_name)
        prefixes += composer.packages_named(given)
        if work := _WORK.get(type(self).verb or ""):
            configs = composer.configs(given, one_trial=False)
            type(self).num_failed = pkgutil.resolve_name(work)(configs, allowed=prefixes)
            return
        noted: dict[str, Any] = {
            "overrides": type(self).arguments,
            "command": type(self).command,
            "allowed": prefixes,
        }
        if not self.one_trial and (strategy := composer.strategy(given)).is_guided:
            type(self).num_failed = search(composer.studies(given), strategy, **noted)
            return
        type(self).num_failed = carry_out(composer.configs(given, one_trial=self.one_trial), **noted)


def split_allowed(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Overrides without `allow=package,...`, and the packages that these name: no config could allow any."""
    others = [argument for argument in arguments if not argument.startswith(ALLOW)]
    lists = [argument.removeprefix(ALLOW) for argument in arguments if argument.startswith(ALLOW)]
    return others, [name for given in lists for name in re.split(r"[\[\],\s]+", given) if name]


def register() -> None:
    """Make the sweeper known to Hydra.

    Hydra 1.3 takes plugins from the namespace `hydra_plugins` alone. This module gets a name there for this process,
    because a package that is really installed there is imported by every Hydra application on the machine.
    """
    plugins = Plugins.instance()
    namespace = sys.modules.setdefault("hydra_plugins", types.ModuleType("hydra_plugins"))
    sys.modules[PLUGIN] = sys.modules[__name__]
    setattr(namespace, PLUGIN.rpartition(".")[2], sys.modules[__name__])
    plugins.register(OptbenchSweeper)
