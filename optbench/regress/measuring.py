"""What is asked of a side: its trials' final losses, exact figures of its steps, and their times."""

import hashlib
import itertools
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from optbench.asking import Process
from optbench.errors import UsageError
from optbench.executors.devices import thread_variables
from optbench.regress import benchmarks
from optbench.regress.judging import Expected
from optbench.regress.readings import Final, Readings, Sample
from optbench.regress.sides import Side
from optbench.regress.suite import Suite
from optbench.regress.sweeping import sweep
from optbench.regress.talking import Taken, Talk, spread

INSTRUMENT = Path(__file__).with_name("instrument.py")
MAX_SECONDS = 3600.0
# Of a subject in a process: they are spread over its life, so that a slow spell of the machine does not meet them all.
NUM_BLOCKS = 8
# In this order, where a task has several.
LOSSES = ("test_loss", "train_loss")

# What steps of a suite have in common.
_OF_A_PROCESS = ("device", "num_threads", "deterministic")
# What a subject's name says.
_OF_A_SUBJECT = ("optimizer", "hardware.implementation", "hardware.compile_step", "hardware.precision")

Config = Mapping[str, Any]
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A suite, composed by this side: the same subjects as the other one's, unless its configs are others.

    Attributes:
        suite: which.
        trials: the configs of each of its sweeps.
        steps: the configs of each of its steps.
        folder: of more configs; None is none.
    """

    suite: Suite
    trials: Mapping[str, Sequence[Config]]
    steps: Mapping[str, Sequence[Config]]
    folder: Path | None

    @property
    def asked(self) -> dict[str, str]:
        """A digest of what each subject is, by its overrides."""
        found: dict[str, str] = {}
        for name, configs in self.trials.items():
            found |= {trial_subject(name, config): _digest(self.suite.trials[name]) for config in configs}
        for name, configs in self.steps.items():
            found |= {step_subject(config): _digest(self.suite.steps[name]) for config in configs}
        return found

    @property
    def expected(self) -> Expected:
        """What there has to be a finding of."""
        return Expected(
            trials=[trial_subject(name, config) for name, configs in self.trials.items() for config in configs],
            steps=self.subjects,
            is_timed=self.suite.num_pairs > 0,
        )

    @property
    def subjects(self) -> list[str]:
        """Of all steps."""
        return [step_subject(config) for configs in self.steps.values() for config in configs]

    @property
    def num_threads(self) -> int:
        """The most that a step asks for."""
        return max(
            (config["hardware"]["num_threads"] for configs in self.steps.values() for config in configs), default=1
        )

    def check(self) -> None:
        """Refuse what would make one metric of two.

        Raises:
            UsageError: two steps, or two trials with the same seed, have one name; or steps want different processes.
        """
        for key in _OF_A_PROCESS:
            if len({str(config["hardware"].get(key)) for configs in self.steps.values() for config in configs}) > 1:
                raise UsageError(
                    f"suite {self.suite.name}: steps differ in hardware.{key}, and one process measures all of them. "
                    "Make it another suite."
                )
        steps = self.subjects
        trials = [
            f"{trial_subject(name, config)} with seed {config['seed']}"
            for name, configs in self.trials.items()
            for config in configs
        ]
        for kind, subjects in (("steps", steps), ("trials", trials)):
            for subject in subjects:
                if subjects.count(subject) > 1:
                    raise UsageError(
                        f"suite {self.suite.name}: {kind} ask for {subject!r} more than once. An optimizer may be in "
                        f"several of {kind} only where its hardware.implementation, compile_step or precision differ, "
                        "or where the entries have other names."
                    )


def compose(suite: Suite, composed: Callable[[Sequence[str]], Iterable[Config]], *, folder: Path | None) -> Plan:
    """Compose a suite, so that a mistake shows before anything is measured.

    Args:
        suite: which.
        composed: configs from overrides.
        folder: of more configs.

    Raises:
        UsageError: an override is wrong, or two subjects have the same name.
    """
    plan = Plan(
        suite=suite,
        trials={name: list(composed([*lines, "sweep=once"])) for name, lines in suite.trials.items()},
        steps={name: list(composed([*lines, "sweep=once"])) for name, lines in suite.steps.items()},
        folder=folder,
    )
    plan.check()
    return plan


def step_subject(config: Config) -> str:
    """As the instrument names it: the optimizer, and how its step is computed where that is asked for."""
    hardware = config["hardware"]
    words = [
        config["optimizer"]["name"],
        hardware.get("implementation"),
        "compiled" if hardware.get("compile_step") else None,
        None if hardware.get("precision", "fp32") == "fp32" else hardware["precision"],
    ]
    return " ".join(word for word in words if word)


def trial_subject(name: str, config: Config) -> str:
    """The sweep's name and the optimizer's."""
    return f"{name} {config['optimizer']['name']}"


@dataclass(kw_only=True)
class Found(Generic[T]):
    """What a side answers.

    Attributes:
        found: by subject.
        composed: the subjects that it knows, as far as it says.
        environment: where it was measured; empty where it does not say.
        failures: why subjects have nothing.
    """

    found: dict[str, T] = field(default_factory=dict)
    composed: Sequence[str] = ()
    environment: Mapping[str, Any] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Measuring:
    """Asks sides, one question after another.

    Args:
        plan: what is asked.
        work: a folder for sweeps and compiled code, emptied before.
        tracked: overrides of the logger, for the trials of this side.
        say: what is being done, a line each.
    """

    plan: Plan
    work: Path
    tracked: Sequence[str] = ()
    say: Callable[[str], None] = field(default=lambda _: None)

    def readings(self, side: Side, *, is_here: bool) -> Readings:
        """All but times.

        Args:
            side: which.
            is_here: whether it is this one, whose trials are tracked.

        Raises:
            UsageError: the side finds a mistake in what it is asked.
            Interrupted: a signal came.
        """
        trained = self.finals(side, is_here=is_here)
        stepped = self.exact(side)
        failures = {**trained.failures, **stepped.failures}
        has = {*trained.found, *stepped.composed, *failures}
        return Readings(
            environment=stepped.environment or trained.environment,
            # The other side may lack what this one has: then it is new here.
            asked={subject: asked for subject, asked in self.plan.asked.items() if is_here or subject in has},
            exact=stepped.found,
            finals=trained.found,
            failures=failures,
        )

    def samples(self, sides: Sequence[Side], only: Sequence[str]) -> list[Taken]:
        """Times of these subjects, of one fresh process for each side.

        The processes are there at the same time, and take blocks of steps in turn, one subject after another and then
        from the first again, so that each meets the machine as the others do.

        Args:
            sides: in the order in which they begin; every other time it is turned round.
            only: the subjects.
        """
        if self.plan.suite.benchmarks is not None:
            return [Taken(*self._benchmarked(side, only)) for side in sides]
        with ExitStack() as stack:
            talks = [
                Talk(stack.enter_context(self._process(side).talk()), self._question(kind="time", only=only))
                for side in sides
            ]
            for talk in talks:
                talk.until("ready")
            turns = itertools.cycle([talks, talks[::-1]])
            for _ in range(NUM_BLOCKS):
                for subject in only:
                    for talk in next(turns):
                        talk.block(subject, seconds=self.plan.suite.seconds / NUM_BLOCKS)
            return [talk.finished(only) for talk in talks]

    def _benchmarked(self, side: Side, only: Sequence[str]) -> tuple[dict[str, Sample], dict[str, Any], dict[str, str]]:
        assert self.plan.suite.benchmarks is not None
        return benchmarks.samples(
            side,
            suite=self.plan.suite.name,
            file=benchmarks.file_of(self.plan.suite.benchmarks),
            only=only,
            num_threads=self.plan.num_threads,
            configs=self.plan.folder,
        )

    def finals(self, side: Side, *, is_here: bool) -> Found[dict[str, Final]]:
        """How the trials end, by subject and seed."""
        found: Found[dict[str, Final]] = Found()
        for name, configs in self.plan.trials.items():
            self.say(f"trials: {name}, {len(configs)} on {side.name}")
            folder = self.work / ("here" if is_here else "there")
            tracked = self.tracked if is_here else ()
            records, reason = sweep(
                side, self.plan.suite.trials[name], name=name, results=folder, others=tracked, configs=self.plan.folder
            )
            for record in records:
                subject, seed = trial_subject(name, record["config"]), str(record["config"]["seed"])
                found.found.setdefault(subject, {})[seed] = _final(record)
                found.environment = _environment(record)
            for subject in dict.fromkeys(trial_subject(name, config) for config in configs):
                if subject not in found.found and (reason or is_here):
                    found.failures[subject] = reason or "its trials have no result"
        return found

    def exact(self, side: Side, *, only: Sequence[str] | None = None) -> Found[dict[str, int]]:
        """Bytes and operations of the steps.

        Args:
            side: which.
            only: the steps; None is all of the suite.
        """
        found: Found[dict[str, int]] = Found()
        if not self.plan.steps:
            return found
        if only is None:
            self.say(f"bytes and operations of {len(self.plan.subjects)} steps on {side.name}")
        failures: dict[str, str] = {}
        try:
            for answer in self._process(side).ask(self._question(kind="exact", only=only)):
                if "environment" in answer:
                    found.environment, found.composed = _environment(answer), list(answer["composed"])
                    side.check(answer["optbench"])
                elif "exact" in answer:
                    found.found.setdefault(answer["subject"], {}).update(answer["exact"])
                elif "failure" in answer:
                    failures[answer.get("subject", "")] = answer["failure"]
        except UsageError as error:
            raise UsageError(f"{side.name}: {error}") from error
        found.failures = spread(failures, found.composed or self.plan.subjects, found.found)
        return found

    def _process(self, side: Side) -> Process:
        (self.work / "compiled").mkdir(parents=True, exist_ok=True)
        return Process(
            command=[side.python, "-P", str(INSTRUMENT)],
            variables={
                **side.environ(),
                **thread_variables(self.plan.num_threads),
                "TORCHINDUCTOR_CACHE_DIR": str(self.work / "compiled"),
            },
            what=f"the process that measures {side.name}",
            max_seconds=MAX_SECONDS,
        )

    def _question(self, *, kind: str, only: Sequence[str] | None) -> dict[str, Any]:
        return {
            "kind": kind,
            "steps": {name: list(lines) for name, lines in self.plan.suite.steps.items()},
            "only": only if only is None else list(only),
            "config_dir": None if self.plan.folder is None else str(self.plan.folder.resolve()),
        }


def _environment(record: Mapping[str, Any]) -> dict[str, Any]:
    """Where it was measured, without the name of the host: what is kept in git and sent about is no place for it."""
    return {key: value for key, value in record["environment"].items() if key != "host"}


def _final(record: Mapping[str, Any]) -> Final:
    status, summary = str(record["status"]), record["summary"]
    loss = next((summary[name] for name in LOSSES if name in summary), None)
    succeeded = status in ("completed", "reached_target")
    return Final(status=status, loss=float(loss) if succeeded and isinstance(loss, (int, float)) else None)


def _digest(overrides: Sequence[str]) -> str:
    """Of what is asked of each optimizer: which others there are is no part of it."""
    kept = [line for line in overrides if line.lstrip("+~").partition("=")[0] not in _OF_A_SUBJECT]
    return hashlib.sha256(json.dumps(kept).encode()).hexdigest()[:16]
