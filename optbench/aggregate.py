"""Over several tasks: ranks, interquartile means, who is likely to be better, and who reaches a target how soon.

Only optimizers that ran on every task are compared: a mean over other tasks is another mean. Controls are left out,
and so are tasks on which a single optimizer ran. A failure counts as what it is: no better than no training, and a
target that is never reached.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from optbench.contest import Contender, Contest
from optbench.curves import Curves
from optbench.stats import CONFIDENCE, NUM_RESAMPLES, Estimate, difference, ties

REFERENCE = "adamw"
FEW_TASKS = 5


@dataclass(frozen=True, kw_only=True)
class Profile:
    """How soon each optimizer reaches the target on each problem, a problem being a task with a seed.

    Attributes:
        problems: such as `digits_mlp seed 0`.
        targets: of each task, such as `test_accuracy >= 0.95`.
        steps: of each optimizer on each problem; infinite where it never gets there.
    """

    problems: Sequence[str]
    targets: Mapping[str, str]
    steps: Mapping[str, Sequence[float]]


@dataclass(frozen=True, kw_only=True)
class Aggregate:
    """What several tasks say of the same optimizers, each at its best setting.

    Attributes:
        tasks: that count.
        optimizers: that ran on all of them, the best mean rank first.
        left_out: why each of the other optimizers, or a task, is not comparable.
        ranks: of each optimizer on each task, 1 the best; those that are not told apart share the mean of their places.
        mean_ranks: over tasks, with an interval over them, as if they were drawn from more of their kind.
        scores: interquartile mean over tasks and seeds of scores in which 0 is no training and 1 the best mean of the
            task.
        improvement: how likely each is to be better than the reference, on a task and a seed by chance.
        reference: whom `improvement` compares with.
        num_failed: of the trials that this is over, by optimizer.
        num_trials: that this is over, by optimizer: the same seeds for all.
        profile: None where no curve tells.
    """

    tasks: Sequence[str]
    optimizers: Sequence[str]
    left_out: Mapping[str, str]
    ranks: Mapping[str, Mapping[str, float]]
    mean_ranks: Mapping[str, Estimate]
    scores: Mapping[str, Estimate]
    improvement: Mapping[str, Estimate]
    reference: str
    num_failed: Mapping[str, int]
    num_trials: Mapping[str, int]
    profile: Profile | None


def aggregate(contests: Sequence[Contest], *, curves: Curves) -> Aggregate | None:
    """What these contests say together; None where fewer than two tasks have two optimizers in common.

    Args:
        contests: one for each task.
        curves: of their trials.
    """
    fields = {contest.task: _contenders(contest) for contest in contests}
    fields = {task: field for task, field in fields.items() if len(field) > 1}
    names = list(dict.fromkeys(name for field in fields.values() for name in field))
    everywhere = [name for name in names if all(name in field for field in fields.values())]
    # The same seeds for all: another number of them would be another weight of the task.
    seeds = {task: _shared([field[name] for name in everywhere]) for task, field in fields.items() if everywhere}
    contests = [contest for contest in contests if seeds.get(contest.task)]
    if len(contests) < 2 or len(everywhere) < 2:
        return None
    left_out = {
        name: f"ran on {sum(name in field for field in fields.values())} of {len(fields)} tasks"
        for name in names
        if name not in everywhere
    }
    dropped = [task for task in fields if not seeds.get(task)]
    scored = {contest.task: _scores(contest, everywhere, seeds[contest.task]) for contest in contests}
    ranks = _ranks(contests, everywhere)
    mean_ranks = {name: _mean_rank(list(ranks[name].values())) for name in everywhere}
    order = sorted(everywhere, key=lambda name: (mean_ranks[name].mean, name))
    reference = REFERENCE if REFERENCE in everywhere else order[0]
    num_trials = sum(len(seeds[contest.task]) for contest in contests)
    num_failed = {
        name: sum(len(set(seeds[contest.task]) - fields[contest.task][name].best.values.keys()) for contest in contests)
        for name in order
    }
    return Aggregate(
        tasks=[contest.task for contest in contests],
        optimizers=order,
        left_out={**left_out, **dict.fromkeys(dropped, "has no seed that all optimizers ran with")},
        ranks={name: ranks[name] for name in order},
        mean_ranks={name: mean_ranks[name] for name in order},
        scores={name: _interquartile(name, scored) for name in order},
        improvement={name: _improvement(name, reference, scored) for name in order if name != reference},
        reference=reference,
        num_failed=num_failed,
        num_trials=dict.fromkeys(order, num_trials),
        profile=_profile(contests, order, curves=curves),
    )


def _contenders(contest: Contest) -> dict[str, Contender]:
    return {contender.optimizer: contender for contender in contest.contenders if not contender.is_control}


# Scores of one task: an array over seeds for each optimizer.
_Scores = Mapping[str, NDArray[np.float64]]


def _shared(field: Sequence[Contender]) -> list[int]:
    """The seeds that the best settings of all of these were run with."""
    return sorted(set(field[0].best.seeds).intersection(*(one.best.seeds for one in field[1:])))


def _scores(contest: Contest, names: Sequence[str], seeds: Sequence[int]) -> _Scores:
    """Each trial's part of the way from no training to the best mean, by the task's first metric.

    Of a task with a target it is the best mean number of steps to it over the trial's. It is 0 for trials that failed,
    never came to the target, or did worse than no training; and for all where none did better.
    """
    field = _contenders(contest)
    by_steps = field[names[0]].best.num_reached is not None
    known = {
        name: {seed: value for seed, value in row.ranking.items() if seed in seeds}
        for name in names
        for row in (field[name].best,)
    }
    means = [float(np.mean(list(own.values()))) for own in known.values() if own]
    if by_steps:
        fewest = min(means, default=0.0)
        part = {name: {seed: fewest / max(steps, 1.0) for seed, steps in own.items()} for name, own in known.items()}
    else:
        best = min(means, key=lambda mean: contest.sign * mean, default=0.0)
        every = [value for own in known.values() for value in own.values()]
        worst = max(every, key=lambda value: contest.sign * value, default=0.0)
        start = worst if contest.start is None else contest.start
        way = best - start
        learns = contest.sign * way < 0.0
        part = {
            name: {seed: max((value - start) / way, 0.0) if learns else 0.0 for seed, value in own.items()}
            for name, own in known.items()
        }
    return {name: np.asarray([part[name].get(seed, 0.0) for seed in seeds]) for name in names}


def _ranks(contests: Sequence[Contest], names: Sequence[str]) -> dict[str, dict[str, float]]:
    """Places by task; those not told apart from the first of a group share its places."""
    found: dict[str, dict[str, float]] = {name: {} for name in names}
    for contest in contests:
        waiting = [contender for contender in contest.contenders if contender.optimizer in names]
        place = 1
        while waiting:
            first, *others = waiting
            group = [first]
            if first.best.is_complete:
                differences = [
                    difference(first.best.ranking, other.best.ranking) if other.best.is_complete else None
                    for other in others
                ]
                tied = ties(differences)
                group += [other for other, is_tied in zip(others, tied, strict=True) if is_tied]
            elif not first.best.values:  # nor has anyone after it a result
                group = waiting
            shared = place + (len(group) - 1) / 2
            for contender in group:
                found[contender.optimizer][contest.task] = shared
            place += len(group)
            waiting = [contender for contender in waiting if contender not in group]
    return found


def _resampled(scored: Mapping[str, _Scores], names: Sequence[str]) -> dict[str, list[NDArray[np.float64]]]:
    """For each optimizer and task, resamples of its seeds (Agarwal et al. 2021: stratified by task)."""
    generator = np.random.default_rng(0)
    found: dict[str, list[NDArray[np.float64]]] = {name: [] for name in names}
    for scores in scored.values():
        for name in names:
            own = scores[name]
            found[name].append(own[generator.integers(len(own), size=(NUM_RESAMPLES, len(own)))])
    return found


def _interval(center: float, resampled: NDArray[np.float64], *, num_values: int, is_single: bool = False) -> Estimate:
    if is_single:  # one seed on each task
        return Estimate(mean=center, low=None, high=None, num_values=num_values)
    tail = (1.0 - CONFIDENCE) / 2.0
    low, high = np.quantile(resampled, [tail, 1.0 - tail])
    return Estimate(mean=center, low=min(float(low), center), high=max(float(high), center), num_values=num_values)


def _is_single(scored: Mapping[str, _Scores]) -> bool:
    return all(len(values) == 1 for scores in scored.values() for values in scores.values())


def interquartile_mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean of the middle half along the last axis: a quarter is cut off at each end."""
    ordered = np.sort(values, axis=-1)
    cut = ordered.shape[-1] // 4
    kept = ordered[..., cut : ordered.shape[-1] - cut]
    return np.asarray(kept.mean(axis=-1))


def _interquartile(name: str, scored: Mapping[str, _Scores]) -> Estimate:
    """Interquartile mean over the trials of all tasks, with a bootstrap interval over seeds, task by task."""
    pooled = np.concatenate([scores[name] for scores in scored.values()])
    drawn = np.concatenate(_resampled(scored, [name])[name], axis=1)
    return _interval(
        float(interquartile_mean(pooled)),
        interquartile_mean(drawn),
        num_values=len(pooled),
        is_single=_is_single(scored),
    )


def _improvement(name: str, reference: str, scored: Mapping[str, _Scores]) -> Estimate:
    """Mean over tasks of the probability that a trial is better than one of the reference, half of an equal one."""

    def better(own: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
        above = (own[..., :, None] > other[..., None, :]).mean(axis=(-2, -1))
        equal = (own[..., :, None] == other[..., None, :]).mean(axis=(-2, -1))
        return np.asarray(above + equal / 2.0)

    center = float(np.mean([better(scores[name], scores[reference]) for scores in scored.values()]))
    drawn = _resampled(scored, [name, reference])
    pairs = zip(drawn[name], drawn[reference], strict=True)
    resampled = np.mean([better(own, other) for own, other in pairs], axis=0)
    return _interval(center, resampled, num_values=len(scored), is_single=_is_single(scored))


def _mean_rank(ranks: Sequence[float]) -> Estimate:
    """The mean over tasks; few tasks say nothing of others, so that it has no interval then."""
    values = np.asarray(ranks)
    if len(values) < FEW_TASKS:
        return Estimate(mean=float(values.mean()), low=None, high=None, num_values=len(values))
    drawn = values[np.random.default_rng(0).integers(len(values), size=(NUM_RESAMPLES, len(values)))]
    return _interval(float(values.mean()), drawn.mean(axis=1), num_values=len(values))


def _profile(contests: Sequence[Contest], names: Sequence[str], *, curves: Curves) -> Profile | None:
    """Steps to the target on each task and seed that all optimizers have.

    Where trials had no target, it is what the reference reaches from every seed, or where it did not run, the optimizer
    in the middle: a target that nobody reaches tells nothing, and neither does one that everybody reaches at once.
    """
    problems: list[str] = []
    targets: dict[str, str] = {}
    steps: dict[str, list[float]] = {name: [] for name in names}
    for contest in contests:
        field = _contenders(contest)
        target = _target(contest, [field[name] for name in names])
        if target is None:
            continue
        targets[contest.task] = f"{contest.metric} {'<=' if contest.direction == 'min' else '>='} {target:.6g}"
        reached = {name: _steps_to(field[name], contest, target=target, curves=curves) for name in names}
        shared = [seed for seed in reached[names[0]] if all(seed in own for own in reached.values())]
        problems += [f"{contest.task} seed {seed}" for seed in shared]
        for name in names:
            steps[name] += [reached[name][seed] for seed in shared]
    return Profile(problems=problems, targets=targets, steps=steps) if problems else None


def _target(contest: Contest, field: Sequence[Contender]) -> float | None:
    asked = contest.config.get("target") or {}
    if asked.get("metric") == contest.metric:
        return float(asked["value"])
    with_result = [contender for contender in field if contender.best.is_complete]
    if asked.get("metric") is not None or not with_result:
        return None
    chosen = next((one for one in with_result if one.optimizer == REFERENCE), with_result[len(with_result) // 2])
    return max(chosen.best.values.values(), key=lambda value: contest.sign * value)


def _steps_to(contender: Contender, contest: Contest, *, target: float, curves: Curves) -> dict[int, float]:
    """The first step at which the target was seen to be reached, by seed."""
    found = {}
    for curve in curves.of(contender.best):
        if not curve.status.succeeded:  # whatever it had reached before
            found[curve.seed] = math.inf
            continue
        values = curve.columns.get(contest.metric, [])
        points = zip(curve.columns["step"], values, strict=False)
        found[curve.seed] = next(
            (step for step, value in points if contest.sign * value <= contest.sign * target), math.inf
        )
    return found
