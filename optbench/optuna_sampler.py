"""Points by Optuna: a tree-structured Parzen estimator chooses them, and its pruner gives up those below the median."""

import json
import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, cast

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

from optbench.journal import Lock, open_study
from optbench.measurement import Status
from optbench.samplers import Outcome, Told, derived, make_point, random_points, spelling, unseen
from optbench.search import Choices, Dimension, Point, Range, Study

_POINT, _OUTCOME = "point", "outcome"


class OptunaSampler:
    """Points by Optuna's TPE, which goes on from its journal where an earlier process stopped.

    Each point has random numbers of its own, derived from the seed and how many were chosen before: the same points
    told in the same order give the same next one, in one process or in several.

    Args:
        study: what is searched.
        base: its config where nothing is searched.
        seed: of the points.
        journal: the file that Optuna notes everything in.
        direction: `min` or `max`.
        num_random: points at random before TPE begins.
        num_unpruned: trials that end before one is given up, since it is worse than the median of theirs.
        stored: the points of which there are results; needed where the journal turns out to be damaged.
        message: takes what people should read.

    Raises:
        OSError: the journal's folder cannot be written to.
    """

    def __init__(
        self,
        study: Study,
        *,
        base: Mapping[str, Any],
        seed: int,
        journal: Path,
        direction: str,
        num_random: int,
        num_unpruned: int,
        stored: Callable[[], Iterable[Point]],
        message: Callable[[str], None],
    ) -> None:
        self._space = study
        self._base = base
        self._seed = seed
        self._num_random = num_random
        self._asked: dict[int, Point] = {}
        self._told: dict[str, Told] = {}
        self._ids: dict[int, int] = {}  # Optuna's own numbers of trials, by ours
        self._first_open = 0
        self._seen: set[str] = set()
        self._journal = journal
        self._size = -1
        self._lock = Lock(journal)
        self._study, damaged = open_study(journal, lock=self._lock, direction=direction, check=_check)
        self._study.pruner = optuna.pruners.MedianPruner(n_startup_trials=num_unpruned, n_min_trials=num_unpruned)
        with self._lock:
            self._give_up_half_asked()
            if damaged is not None:
                message(
                    f"{damaged}: the journal of {study.name} could not be read; set aside, and made anew from the "
                    "stored results."
                )
                self._refresh()
                for point in stored():
                    if spelling(point) not in self._seen:
                        self._add(point)

    @property
    def asked(self) -> Mapping[int, Point]:
        """The points under way, those of other processes too."""
        self._refresh()
        return self._asked

    @property
    def num_points(self) -> int:
        """How many points were chosen."""
        self._refresh()
        return len(self._seen)

    @property
    def told(self) -> Mapping[str, Told]:
        """The points that have ended, by `spelling`."""
        self._refresh()
        return self._told

    def ask(self, at_most: int | None) -> int | None:
        """Let TPE choose; where it chooses what it chose before, as it does among few values, take a random one."""
        with self._lock:  # two processes must not both take the last one
            self._refresh()
            if at_most is not None and len(self._seen) >= at_most:
                return None
            number = len(self._ids)
            self._study.sampler = optuna.samplers.TPESampler(
                n_startup_trials=self._num_random,
                seed=derived(self._seed, f"{self._space.name}/{number}"),
                multivariate=True,
                constant_liar=True,  # what is under way counts as bad: several at a time then differ
            )
            trial = self._study.ask()
            point = make_point(self._space, base=self._base, choose=lambda dimension: _suggest(trial, dimension))
            if spelling(point) not in self._seen:
                trial.set_user_attr(_POINT, point)
                self._refresh()
                return trial.number
            self._study.tell(trial.number, state=TrialState.FAIL)
            seed = derived(self._seed, f"other {number}")
            other = unseen(random_points(self._space, base=self._base, seed=seed), self._seen)
            return None if other is None else self._add(other)

    def ask_again(self, told: Told) -> None:
        """Add the point once more; what Optuna was told of it before stays in its journal."""
        with self._lock:
            self._refresh()
            if spelling(told.point) not in map(spelling, self._asked.values()):
                self._add(told.point)

    def should_stop(self, number: int, *, step: int, value: float) -> bool:
        """Whether the best value so far is worse than the median of the others' values at this step."""
        if not math.isfinite(value):
            return False  # whether it has diverged is not for the pruner to say
        storage, trial_id = self._study._storage, self._ids[number]
        try:
            storage.set_trial_intermediate_value(trial_id, step, value)
        except optuna.exceptions.UpdateFinishedTrialError:  # another process has told of it
            return False
        return self._study.pruner.prune(self._study, storage.get_trial(trial_id))

    def tell(self, number: int, outcome: Outcome) -> None:
        """Tell Optuna, in its states.

        A point without a value is told as pruned: TPE ranks it behind all that have one, and keeps away. Samplers
        ignore what is told as failed, so that they would choose what diverges or does not fit again and again; and an
        infinite value would be taken for one, in a search for a maximum for the best one. A crash is told as failed,
        since it may have nothing to do with the point.
        """
        with self._lock:
            self._refresh()
            if number not in self._asked:
                return
            what = {"status": outcome.status, "value": outcome.value, "seconds": outcome.seconds}
            self._study._storage.set_trial_user_attr(self._ids[number], _OUTCOME, what)
            if outcome.value is not None:
                self._study.tell(number, outcome.value)
            else:
                crashed = outcome.status is Status.CRASHED
                self._study.tell(number, state=TrialState.FAIL if crashed else TrialState.PRUNED)
            self._refresh()

    def _refresh(self) -> None:
        """Take in what this and other processes have added to the journal."""
        size = self._journal.stat().st_size
        if size == self._size:
            return
        self._size = size
        trials = self._study.get_trials(deepcopy=False)
        for trial in trials[self._first_open :]:
            number, is_finished = trial.number, trial.state.is_finished()
            if is_finished and number == self._first_open:
                self._first_open += 1
            if _POINT not in trial.user_attrs or (is_finished and number in self._ids and number not in self._asked):
                continue  # without a point it is being asked, or was left half asked
            point = trial.user_attrs[_POINT]
            self._ids[number] = trial._trial_id
            self._seen.add(spelling(point))
            self._asked[number] = point
            if is_finished:
                del self._asked[number]
                self._told[spelling(point)] = Told(number=number, point=point, outcome=_outcome(trial))

    def _give_up_half_asked(self) -> None:
        """Close what a process left behind that was killed while it asked; nobody asks while we have the lock."""
        for trial in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if _POINT not in trial.user_attrs:
                self._study.tell(trial.number, state=TrialState.FAIL)

    def _add(self, point: Point) -> int:
        """Put a point under way that Optuna has not chosen."""
        distributions = {each.key: _distribution(each) for each in self._space.dimensions if each.key in point}
        params = {each.key: _parameter(each, point[each.key]) for each in self._space.dimensions if each.key in point}
        self._study.add_trial(
            optuna.trial.create_trial(
                state=TrialState.RUNNING, params=params, distributions=distributions, user_attrs={_POINT: point}
            )
        )
        self._refresh()
        return max(self._asked)


def _check(study: optuna.Study) -> None:
    for trial in study.get_trials(deepcopy=False):
        if _POINT in trial.user_attrs:
            spelling({**trial.user_attrs[_POINT]})
            if trial.state.is_finished():
                _outcome(trial)


def _outcome(trial: FrozenTrial) -> Outcome:
    told = trial.user_attrs[_OUTCOME]
    return Outcome(status=Status(told["status"]), value=told["value"], seconds=float(told["seconds"]))


def _suggest(trial: optuna.Trial, dimension: Dimension) -> Any:
    match _distribution(dimension):
        case FloatDistribution(low=low, high=high, log=log):
            return _value(dimension, trial.suggest_float(dimension.key, low, high, log=log))
        case IntDistribution(low=low, high=high, log=log):
            return _value(dimension, trial.suggest_int(dimension.key, low, high, log=log))
        case CategoricalDistribution(choices=choices):
            return _value(dimension, trial.suggest_categorical(dimension.key, choices))
    raise AssertionError(dimension)


def _distribution(dimension: Dimension) -> BaseDistribution:
    """What Optuna is to choose from: of numbers in a list, the place in their order; of other values, their spelling.

    Optuna takes no lists for values, and would forget the order of numbers.
    """
    values = dimension.values
    if isinstance(values, Choices):
        if numbers := _ordered(values):
            return IntDistribution(0, len(numbers) - 1)
        return CategoricalDistribution(list(dict.fromkeys(map(json.dumps, values.values))))
    if values.integer:
        return IntDistribution(math.ceil(values.low), math.floor(values.high), log=values.log)
    return FloatDistribution(values.low, values.high, log=values.log)


def _value(dimension: Dimension, parameter: Any) -> Any:
    """The value that a parameter of Optuna's stands for."""
    values = dimension.values
    if isinstance(values, Choices):
        if numbers := _ordered(values):
            return numbers[parameter]
        return next(value for value in values.values if json.dumps(value) == parameter)
    return int(parameter) if values.integer else rounded(values, parameter)


def _parameter(dimension: Dimension, value: Any) -> Any:
    """The parameter of Optuna's that stands for a value."""
    if isinstance(dimension.values, Choices):
        if numbers := _ordered(dimension.values):
            return numbers.index(value)
        return json.dumps(value)
    return value


def _ordered(choices: Choices) -> list[Any]:
    """Its values in their order, where they are numbers."""
    are_numbers = all(type(value) in (int, float) for value in choices.values)
    return sorted(set(cast("list[float]", choices.values))) if are_numbers else []


def rounded(values: Range, number: float) -> float:
    """In six significant digits, as `Range.sample` spells what it draws."""
    return min(max(float(f"{number:.6g}"), values.low), values.high)
