"""What controls say of a task: whether anything can be learned on it, and whether the choice of optimizer matters."""

from collections.abc import Mapping, Sequence

from optbench.contest import Contender, Label
from optbench.stats import difference, ties

# What each is there for.
CONTROLS: Mapping[str, str] = {"null": "learns nothing", "sgd_untuned": "is not tuned"}
NULL, UNTUNED = CONTROLS
FEW_SEEDS = 5


def label(contenders: Sequence[Contender], *, sign: float) -> tuple[Label | None, str]:
    """What a task is good for, by its controls, and why.

    - `unsolved`: no optimizer does better than one that learns nothing.
    - `saturated`: no optimizer does better than SGD as it comes, so nothing is to be gained by another.
    - `discriminating`: neither.

    Args:
        contenders: the best first.
        sign: what makes a lower value of what ranks the better one.

    Returns:
        The label, None where it takes a control that was not run, or more seeds; and a sentence.
    """
    controls = {contender.optimizer: contender for contender in contenders if contender.is_control}
    others = [contender for contender in contenders if not contender.is_control and contender.best.is_complete]
    if not others:
        return None, "Not labelled: no optimizer but controls has a setting without failures."
    missing = [name for name in CONTROLS if name not in controls]
    if len(missing) == len(CONTROLS):
        return None, f"Not labelled, since no controls ran: add optimizer={','.join(missing)}."
    seeds = min(one.best.num_trials for one in others)
    if seeds < 2:
        return None, "Not labelled: one seed tells nothing apart."
    by_chance = f"With {seeds} seeds" if seeds < FEW_SEEDS else "By these seeds"
    null, untuned = controls.get(NULL), controls.get(UNTUNED)
    if null is not None and not _better(others, null, sign=sign):
        return "unsolved", f"{by_chance} no optimizer does better than {NULL}, which learns nothing."
    if untuned is not None and not _better(others, untuned, sign=sign):
        return "saturated", f"{by_chance} no optimizer does better than {UNTUNED}, so tuning has nothing to gain."
    if missing:
        return None, f"Not labelled, since {missing[0]} did not run: add optimizer={missing[0]}."
    return "discriminating", f"There are optimizers that do better than {UNTUNED}, and than {NULL}."


def _better(others: Sequence[Contender], control: Contender, *, sign: float) -> bool:
    """Whether one of these does better than the control, and is told apart from it."""
    if not control.best.is_complete:  # it failed, or never came to the target
        return True
    found = [difference(control.best.ranking, other.best.ranking) for other in others]
    apart = zip(found, ties(found), strict=True)
    return any(
        one is not None and one.p_value is not None and not tied and sign * one.mean < 0.0 for one, tied in apart
    )
