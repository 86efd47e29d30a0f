"""A sweep from configs to a table: plan what the store lacks, run it, show all that was asked for."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from optbench.component import Component, component
from optbench.errors import Interrupted, UsageError, unknown
from optbench.execution import Context, Limits
from optbench.parsing import parse, parse_mapping, parse_value
from optbench.secrets import Checker, check_config
from optbench.trial import Trial

if TYPE_CHECKING:
    from optbench.executors import Executor, Source
    from optbench.method import Strategy
    from optbench.search import Study

# What all trials of a sweep have in common: none of it is in an id.
SHARED = ("results", "sweep", "logger", "executor", "limits", "checkpoint", "n", "cost", "claims", "figures")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How a sweep is carried out.

    Attributes:
        results: the folder of all sweeps.
        name: of this one.
        rerun: stored results that are to be made again, by their status or as `failed` or `stale`.
        logger: hears of every trial.
        executor: runs them.
        limits: what may be spent.
        checkpoint_seconds: between two checkpoints of a trial.
        cost_seconds: spent on timing the steps of each task, optimizer and hardware; None measures no cost.
    """

    results: Path
    name: str
    rerun: Sequence[str]
    logger: Component
    executor: Component
    limits: Limits
    checkpoint_seconds: float | None
    cost_seconds: float | None

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "Settings":
        """Those that a composed config has.

        Raises:
            UsageError: one is missing or of the wrong type.
        """
        parts = {key: config.get(key) for key in SHARED}
        for key, value in parts.items():
            if value is None and key not in ("n", "claims", "figures"):
                raise UsageError(f"{key} is missing: a sweep needs it.")
        if not isinstance(parts["results"], str):
            raise UsageError(f"results={parts['results']!r}: a folder is needed, such as results=results.")
        sweep = parse_mapping(parts["sweep"], where="sweep")
        name, rerun = sweep.get("name"), sweep.get("rerun")
        if not isinstance(name, str):
            raise UsageError(f"sweep.name={name!r}: a plain folder name is needed, such as sweep.name=default.")
        checkpoint = parse_mapping(parts["checkpoint"], where="checkpoint")
        every_seconds = parse_value(checkpoint.get("every_seconds"), float | None, where="checkpoint.every_seconds")
        cost_seconds = _cost_seconds(parts["cost"])
        limits = parse(Limits, parse_mapping(parts["limits"], where="limits"), where="limits")
        for key, value in (*vars(limits).items(), ("every_seconds", every_seconds), ("seconds", cost_seconds)):
            if value is not None and not (value > 0 or (key == "grace_seconds" and value == 0)):
                where = {"every_seconds": "checkpoint", "seconds": "cost"}.get(key, "limits")
                raise UsageError(f"{where}.{key}={value:g}: it must be above 0.")
        return cls(
            results=Path(parts["results"]),
            name=name,
            rerun=[rerun] if isinstance(rerun, str) else list(rerun or []),
            logger=component(parse_mapping(parts["logger"], where="logger"), group="logger"),
            executor=component(parse_mapping(parts["executor"], where="executor"), group="executor"),
            limits=limits,
            checkpoint_seconds=every_seconds,
            cost_seconds=cost_seconds,
        )

    def context(self, trials: Iterable[Trial], *, allowed: Sequence[str]) -> Context:
        """All that a worker needs besides the trials."""
        hardware = dict.fromkeys(trial.hardware for trial in trials)
        return Context(
            results=str(self.results.resolve()),
            sweep=self.name,
            logger=self.logger,
            allowed=tuple(allowed),
            limits=self.limits,
            checkpoint_seconds=self.checkpoint_seconds,
            hardware=tuple(hardware),
        )


def carry_out(
    configs: Iterable[Mapping[str, Any]],
    *,
    overrides: Sequence[str],
    command: Sequence[str] = (),
    allowed: Sequence[str] = (),
    shows_table: bool = True,
) -> int:
    """Run the trials that these configs ask for and the store lacks, then show the table.

    Args:
        configs: composed and resolved, one for each combination of values.
        overrides: what they were composed from, to be noted in the store.
        command: what was typed after `optbench`, to be noted too.
        allowed: packages that the command line allows configs to call, besides those of the catalogue.
        shows_table: whether to; papers have tables of their own.

    Returns:
        How many of the trials asked for have failed or have no result; 0 without a table.

    Raises:
        UsageError: a config is wrong, and nothing has been trained; or the store cannot be written to.
        Interrupted: a signal ended the sweep; what had finished is stored.
    """
    from optbench import plan as planning
    from optbench.executors import Listed
    from optbench.live import announce

    configs = iter(configs)
    first = next(configs, None)
    if first is None:
        raise UsageError("the overrides make no trial: a list of values is empty.")
    with _Sweep(first, overrides=overrides, allowed=allowed) as sweep:
        checker = Checker()
        trials = (_trial(config, first, checker=checker) for config in itertools.chain([first], configs))
        made = planning.make(trials, store=sweep.store, rerun=sweep.settings.rerun, runs_here=sweep.executor.runs_here)
        sweep.check([job.trial for job in made.jobs])
        sweep.note(made.trials, overrides=overrides, command=command)
        announce(made)
        sweep.execute(Listed(made.jobs))
        sweep.measure_costs(made.trials)
        return sweep.show(made.trials, with_table=shows_table)


def search(
    studies: Sequence["Study"],
    strategy: "Strategy",
    *,
    overrides: Sequence[str],
    command: Sequence[str] = (),
    allowed: Sequence[str] = (),
) -> int:
    """Run trials of these studies, chosen by what earlier ones gave or until their time is over, then show the table.

    Args:
        studies: what is searched.
        strategy: how, and with which budget.
        overrides: what they were composed from, to be noted in the store.
        command: what was typed after `optbench`, to be noted too.
        allowed: packages that the command line allows configs to call, besides those of the catalogue.

    Returns:
        How many of the trials have failed or have no result.

    Raises:
        UsageError: a config is wrong, and nothing has been trained; or the store cannot be written to.
        Interrupted: a signal ended the sweep; what had finished is stored.
    """
    from optbench import plan as planning
    from optbench.console import warn
    from optbench.exploration import TuningBudget
    from optbench.live import announce_search, show_found
    from optbench.tuning import TuningSource

    configs = [study.configs({})[0] for study in studies]
    with _Sweep(configs[0], overrides=overrides, allowed=allowed) as sweep:
        checker = Checker()
        for config in configs:
            _trial(config, configs[0], checker=checker)
        again = planning.to_run_again(sweep.settings.rerun, runs_here=sweep.executor.runs_here)
        source = TuningSource(
            studies,
            store=sweep.store,
            budget=TuningBudget(num_settings=strategy.num_settings, seconds=strategy.seconds),
            method="optuna" if strategy.method == "optuna" else "random",
            seed=strategy.seed,
            rerun=[trial_id for trial_id, found in sweep.store.statuses().items() if again(found)],
            message=warn,
        )
        sweep.check(source.examples)
        sweep.note(source.trials, overrides=overrides, command=command)
        announce_search(sweep.store, source)
        sweep.execute(source)
        sweep.note(source.trials, overrides=overrides, command=command)
        sweep.measure_costs(source.trials)
        show_found(source.found)
        num_unspent = 0 if source.is_exhausted else 1  # a budget that is not spent is no complete search
        return sweep.show(source.trials) + num_unspent


class _Sweep:
    """What is there while a sweep is carried out: settings, store and executor.

    Args:
        config: of one of its trials.
        overrides: as they were typed.
        allowed: packages that the command line allows configs to call.
    """

    def __init__(self, config: Mapping[str, Any], *, overrides: Sequence[str], allowed: Sequence[str]) -> None:
        check_config(config)  # a secret is to be in no context, plan or result
        from optbench.signals import Signals
        from optbench.store import Store

        self.settings = Settings.from_config(config)
        self.store = Store(self.settings.results, self.settings.name)
        self.executor = _executor(self.settings, overrides=overrides, allowed=allowed)
        self._allowed = allowed
        self._is_closed = False
        self._first = Trial.from_config(config)
        self._shown = {key: config[key] for key in ("claims", "figures") if config.get(key)}
        if self._shown:
            from optbench import findings  # pandas takes its time

            findings.check(self._shown)
        self._context = self.settings.context([self._first], allowed=allowed)
        self._signals = Signals(seconds=self.settings.limits.sweep_seconds)

    def __enter__(self) -> Self:
        if self.store.modified_ns(self._first.id) is None:  # most likely there is something to run
            self.executor.prepare(self._context)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()
        if isinstance(error, OSError):
            raise UsageError(
                f"{self.store.folder} cannot be written to: {error}.\n"
                "What was stored before is kept. Make room, or choose another place with results=<folder>: the same "
                "command then runs what is missing."
            ) from error

    def _close(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            self.executor.close()

    def note(self, trials: Sequence[Trial], *, overrides: Sequence[str], command: Sequence[str]) -> None:
        """Note in the store what is asked for."""
        others = {**self._shown, "command": list(command), "runs_here": self.executor.runs_here}
        self.store.write_plan(trials, overrides, **others)

    def check(self, trials: Sequence[Trial]) -> None:
        """Look at the trials before any of them is run.

        Raises:
            UsageError: nothing has been trained.
        """
        from optbench.console import note, warn
        from optbench.notes import listen

        for path in self.store.quarantined:
            warn(f"{path}: did not hold what was written; set aside, and planned again.")
        if trials:
            listen(note)
            self._context = self.settings.context(trials, allowed=self._allowed)
            for sentence in self.executor.check(trials, self._context):
                warn(sentence)

    def execute(self, source: "Source") -> None:
        """Run what the source gives, until it is exhausted or a signal or the time of the sweep ends it."""
        from optbench.console import warn
        from optbench.live import Progress

        if source.is_exhausted:
            return
        num_slots = self.executor.num_slots(self._context)
        with self._signals, Progress(num_trials=source.num_trials, num_slots=num_slots) as progress:
            self.executor.execute(source, context=self._context, observer=progress, interruption=self._signals)
        self._close()
        if self._signals.is_over:
            warn("the time of the sweep is over (limits.sweep_seconds); the same command goes on.")

    def measure_costs(self, trials: Sequence[Trial]) -> None:
        """Measure the costs that are missing, when nothing else of the sweep runs any more; on this machine alone."""
        from optbench.plan import LOCAL

        seconds = self.settings.cost_seconds
        if seconds is None or self.settings.executor.target != LOCAL or self._signals.is_requested:
            return
        from optbench import costing
        from optbench.costs import Costs
        from optbench.probing import Probes

        costs = Costs(self.store)
        if configs := costing.missing((trial.config for trial in trials), costs):
            self._close()  # a probe is to be alone
            probes = Probes(allowed=self._allowed, interruption=self._signals)
            with self._signals:
                costing.measure(configs, costs=costs, probes=probes, seconds=seconds, after_trials=True)

    def show(self, trials: Sequence[Trial], *, with_table: bool = True) -> int:
        """Show the table; returns how many trials have failed or have no result, 0 without a table.

        Raises:
            Interrupted: a signal had ended the sweep.
        """
        from optbench import terminal  # pandas takes its time

        found = terminal.show_trials(self.store, [trial.id for trial in trials]) if with_table else None
        if self._signals.exit_code is not None:
            raise Interrupted(self._signals.exit_code)
        return 0 if found is None else found.num_failed + found.num_missing


def _cost_seconds(config: Any) -> float | None:
    cost = parse_mapping(config, where="cost")
    for key in cost:
        if key != "seconds":
            raise unknown("key", str(key), ["seconds"], prefix="cost.")
    seconds: float | None = parse_value(cost.get("seconds"), float | None, where="cost.seconds")
    return seconds


def _executor(settings: Settings, *, overrides: Sequence[str], allowed: Sequence[str]) -> "Executor":
    from optbench import allowlist, components

    part = [("executor", settings.executor)]
    allowlist.check_names(part, allowed=allowed)
    allowlist.check_targets(part, allowed=allowed)
    allowlist.check_shell(settings.executor, overrides=overrides, allowed=allowed)
    built: Executor = components.build(settings.executor, group="executor")
    return built


def _trial(config: Mapping[str, Any], first: Mapping[str, Any], *, checker: Checker) -> Trial:
    checker.check(config)
    return Trial.from_config(same(config, first))


def same(config: Mapping[str, Any], first: Mapping[str, Any]) -> Mapping[str, Any]:
    """The config, if it has in common with the first what the trials of a sweep share."""
    for key in SHARED:
        if config.get(key) is not first.get(key) and config.get(key) != first.get(key):
            raise UsageError(f"{key}: one sweep has one value for it, and these overrides give it several.")
    return config
