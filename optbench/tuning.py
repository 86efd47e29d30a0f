"""Trials that a search chooses: points of every study, as many as its budget allows, the same for all of them."""

from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, Literal

from optbench.execution import Job
from optbench.exploration import Exploration, Found, Setting, TuningBudget
from optbench.measurement import Measurement, Status
from optbench.samplers import RandomSampler, Sampler
from optbench.search import Point, Study
from optbench.store import Store
from optbench.trial import Trial

Method = Literal["optuna", "random"]

# So many trials of a study are run to their end before the pruner gives one up.
NUM_UNPRUNED = 5


class TuningSource:
    """The trials of several studies, each with a sampler of its own, in turns.

    The study that has spent least is the next: a sweep that is interrupted has spent about as much on every optimizer.
    What the store has already counts, and is not run.

    A point with several seeds is told when all of them have ended, with the mean; only points with one seed are pruned,
    since of several some would have been run in vain.

    Args:
        studies: to be searched.
        store: of the sweep.
        budget: of each study.
        method: `optuna` for TPE with a journal, `random` for random points.
        seed: of the points.
        prunes: whether Optuna gives up trials that are below the median of the others at the same step.
        num_random: points that Optuna chooses at random before it goes by results.
        rerun: ids of stored trials that are to be run again.
        message: takes what people should read.

    Raises:
        UsageError: a study's config is wrong.
        OSError: the store cannot be written to.
    """

    def __init__(
        self,
        studies: Sequence[Study],
        *,
        store: Store,
        budget: TuningBudget,
        method: Method,
        seed: int = 0,
        prunes: bool = True,
        num_random: int = 10,
        rerun: Collection[str] = (),
        message: Callable[[str], None],
    ) -> None:
        self._store = store
        self._budget = budget
        self._rerun = set(rerun)
        self._message = message
        self._waiting: deque[Job] = deque()
        self._put_back: deque[Job] = deque()
        self._under_way: dict[str, list[Setting]] = {}
        self._num_given = 0
        prunes = prunes and method == "optuna"
        self._explorations = [Exploration(study, seed=seed, budget=budget, prunes=prunes) for study in studies]
        for exploration in self._explorations:
            exploration.sampler = self._sampler(exploration, method=method, num_random=num_random)
            if self._rerun:
                for told in list(exploration.sampler.told.values()):
                    if not self._rerun.isdisjoint(exploration.trials(told.point)):
                        exploration.sampler.ask_again(told)
            self._take_up(exploration)
        if method == "random":
            self._fill()  # it has no journal that would tell which points have ended

    @property
    def examples(self) -> Sequence[Trial]:
        """A trial of each study, for what can be checked before the first one starts."""
        return [exploration.example for exploration in self._explorations]

    @property
    def trials(self) -> Sequence[Trial]:
        """Those of all points that were asked for up to now, ended or not, by this command or an earlier one."""
        found = {
            trial.id: trial
            for each in self._explorations
            for point in each.points
            for trial in each.trials(point).values()
        }
        return list(found.values())

    @property
    def num_trials(self) -> int:
        """How many trials this command runs in all, as far as is known."""
        return self._num_given + sum(each.num_left * each.num_seeds for each in self._explorations)

    @property
    def is_exhausted(self) -> bool:
        """Whether every study has spent its budget, and all its points have ended."""
        if self._waiting or self._put_back or self._under_way:
            return False
        return all(each.is_spent and not each.sampler.asked for each in self._explorations)

    @property
    def found(self) -> Sequence[Found]:
        """What each study has found so far."""
        return [exploration.found for exploration in self._explorations]

    def next(self) -> Job | None:
        """A trial of the study that has spent least; None where one that runs has to end first."""
        self._fill()
        if not self._waiting:
            for exploration in self._explorations:
                self._take_up(exploration)  # another process may have asked, and be gone
        queue = self._waiting or self._put_back
        return queue.popleft() if queue else None

    def put_back(self, job: Job) -> None:
        """It is tried again when no other trial is left to be started."""
        if job.trial.id in self._under_way:
            self._put_back.append(job)

    def measured(self, trial: Trial, measurement: Measurement) -> bool:
        """Whether to go on: not where the pruner of every study that asked for it says so."""
        settings = self._under_way.get(trial.id, [])
        if measurement.status is not None or not settings:
            return True
        stops = [setting.should_stop(measurement) for setting in settings]  # each is to hear of it
        return not all(stops)

    def finished(self, trial: Trial, status: Status, *, summary: Mapping[str, Any], timing: Mapping[str, Any]) -> None:
        """Tell those that asked for it; a trial that was preempted is run again."""
        self._rerun.discard(trial.id)
        if trial.id not in self._under_way:
            return
        if status is Status.PREEMPTED:
            self._waiting.append(Job(trial=trial, replaces=self._store.modified_ns(trial.id)))
            return
        for setting in self._under_way.pop(trial.id):
            setting.ended(trial.id, status, summary=summary, timing=timing)

    def _fill(self) -> None:
        """Ask for points until one has a trial to run."""
        while not self._waiting and (exploration := self._next_exploration()) is not None:
            number = exploration.sampler.ask(self._budget.num_settings)
            exploration.is_closed = number is None
            self._take_up(exploration)

    def _next_exploration(self) -> Exploration | None:
        """The one that has spent least; None where all have, or will have when what is under way has ended."""
        told = [each for exploration in self._explorations for each in exploration.sampler.told.values()]
        guess = sum(each.outcome.seconds for each in told) / len(told) if told else 0.0
        spent = [(each.spent(guess), each.sampler.num_points, each) for each in self._explorations if not each.is_spent]
        found = min(spent, key=lambda entry: entry[:2], default=None)
        return None if found is None or found[0] >= 1.0 else found[2]

    def _take_up(self, exploration: Exploration) -> None:
        """Begin with the points that were asked, by this process or another one, and are not under way here."""
        for number, point in list(exploration.sampler.asked.items()):
            if number not in exploration.settings:
                trials = exploration.trials(point)
                setting = exploration.settings[number] = Setting(exploration, number, ids=set(trials))
                for trial in trials.values():
                    self._begin(trial, setting)

    def _begin(self, trial: Trial, setting: Setting) -> None:
        """Take a trial's result from the store, or have it run."""
        if trial.id in self._under_way:  # for another study, which asks the same
            self._under_way[trial.id].append(setting)
            return
        modified = self._store.modified_ns(trial.id)
        record = None if modified is None else self._store.read(trial.id)
        if record is not None and self._counts(record, setting.exploration):
            status = Status(record["status"])
            setting.ended(trial.id, status, summary=record["summary"], timing=record["timing"])
            return
        self._under_way[trial.id] = [setting]
        self._num_given += 1
        self._waiting.append(Job(trial=trial, replaces=None if record is None else modified))

    def _counts(self, record: Mapping[str, Any], exploration: Exploration) -> bool:
        """Whether a stored result is one; a trial that was given up is none to those who give none up."""
        status = Status(record["status"])
        is_given_up = status is Status.PRUNED and not exploration.prunes
        return status is not Status.PREEMPTED and not is_given_up and record["id"] not in self._rerun

    def _sampler(self, exploration: Exploration, *, method: Method, num_random: int) -> Sampler:
        if method == "random":
            return RandomSampler(exploration.study, base=exploration.base, seed=exploration.seed)
        from optbench.journal import FOLDER
        from optbench.optuna_sampler import OptunaSampler

        return OptunaSampler(
            exploration.study,
            base=exploration.base,
            seed=exploration.seed,
            journal=self._store.folder / FOLDER / f"{exploration.file_name}.journal",
            direction=exploration.direction,
            num_random=num_random,
            num_unpruned=NUM_UNPRUNED,
            stored=lambda: self._stored_points(exploration),
            message=self._message,
        )

    def _stored_points(self, exploration: Exploration) -> Iterator[Point]:
        """The points of a study of which there are results in the store, as those results' configs tell."""
        for trial_id in self._store.index()["id"]:
            record = self._store.read(trial_id)
            if record is not None and (point := exploration.point_of(record)) is not None:
                yield point
