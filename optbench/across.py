"""The tables over several tasks: ranks, interquartile means, and who is likely to be better."""

from optbench.aggregate import FEW_TASKS, Aggregate
from optbench.sheet import Sheet
from optbench.sheets import Line, sheet
from optbench.stats import Estimate


def across(found: Aggregate) -> Sheet:
    """A line for each optimizer that ran on all tasks, the best mean rank first."""
    lines = [_line(found, name) for name in found.optimizers]
    notes = [
        f"Each optimizer at its best setting on {len(found.tasks)} tasks: {', '.join(found.tasks)}; of each the seeds "
        "that all of them have. Controls are not ranked.",
        "rank: optimizers that are not told apart on a task share the mean of their places; [interval] over tasks, "
        f"from {FEW_TASKS} tasks on.",
        "score: 0 is no training, 1 the best mean on the task (of steps to a target where there is one), failures "
        "count as 0; interquartile mean over all trials, [bootstrap over seeds, task by task, 95 %] (Agarwal et al. "
        "2021, https://arxiv.org/abs/2108.13264).",
        f"better than {found.reference}: how likely a trial of it is to end better than one of {found.reference}, the "
        "mean over tasks; at 50 % neither is.",
        *(f"{name}: not comparable, since it {why}." for name, why in found.left_out.items()),
    ]
    return sheet(lines, name="over_tasks", title="over all tasks", notes=notes)


def _line(found: Aggregate, name: str) -> Line:
    score, rank, better = found.scores[name], found.mean_ranks[name], found.improvement.get(name)
    against = f"better than {found.reference}"
    trials = f"{found.num_failed[name]}/{found.num_trials[name]}"
    numbers = {
        "optimizer": name,
        **_columns("mean_rank", rank),
        **_columns("score", score),
        **_columns("probability_of_improvement", better),
        "reference": found.reference,
        **{f"rank_on_{task}": place for task, place in found.ranks[name].items()},
        "num_tasks": len(found.tasks),
        "num_trials": found.num_trials[name],
        "num_failed": found.num_failed[name],
    }
    return Line(
        words={
            "optimizer": name,
            "mean rank": _estimated(rank, digits=2),
            "score (IQM)": _estimated(score, digits=3),
            against: "-" if better is None else _estimated(better, digits=0, scale=100.0, unit=" %"),
            **{task: f"{place:g}" for task, place in found.ranks[name].items()},
            "failed": trials,
        },
        keys={
            "optimizer": name,
            "mean rank": rank.mean,
            "score (IQM)": score.mean,
            against: None if better is None else better.mean,
            **dict(found.ranks[name]),
            "failed": found.num_failed[name],
        },
        numbers=numbers,
    )


def _columns(name: str, found: Estimate | None) -> dict[str, float | None]:
    return {
        name: None if found is None else found.mean,
        f"{name}_low": None if found is None else found.low,
        f"{name}_high": None if found is None else found.high,
    }


def _estimated(found: Estimate, *, digits: int, scale: float = 1.0, unit: str = "") -> str:
    text = f"{found.mean * scale:.{digits}f}{unit}"
    if found.low is None or found.high is None:
        return text
    return f"{text} [{found.low * scale:.{digits}f}, {found.high * scale:.{digits}f}]"
