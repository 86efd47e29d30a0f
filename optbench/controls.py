"""What controls say of a task: whether anything can be learned on it, and whether the choice of optimizer matters."""

from collections.abc import Mapping, Sequence

from optbench.contest import Contender, Label
from optbench.stats import difference, ties

# What each is there for.
CONTROLS: Mapping[str, str] = {"null": "learns nothing", "sgd_untuned": "is not tuned"}
NULL, UNTUNED = CONTROLS


def label(contenders: Sequence[Contender], *, sign: float) -> tuple[Label | None, str]:
    """What a task is good for, by its controls, and why.

    - `unsolved`: no optimizer does better than one that learns nothing.
    - `saturated`: no optimizer does better than SGD as it comes, so nothing is to be gained by another.
    - `discriminating`: neither.

    Args:
        contenders: the best first.
        sign: what makes a lower value of the first metric the better one.

    Returns:
        The label, None where it takes a control that was not run; and a sentence.
    """
    controls = {contender.optimizer: contender for contender in contenders if contender.is_control}
    others = [contender for contender in contenders if not contender.is_control and contender.best.values]
    if not others:
        return None, "No optimizer but controls has a result."
    null, untuned = controls.get(NULL), controls.get(UNTUNED)
    if null is not None and not _better(others, null, sign=sign):
        return "unsolved", f"No optimizer is told apart from {NULL}, which learns nothing."
    if untuned is not None and not _better(others[:1], untuned, sign=sign):
        return (
            "saturated",
            f"The best optimizer is not told apart from {UNTUNED}, so nothing is to be gained by tuning.",
        )
    missing = [name for name, found in ((NULL, null), (UNTUNED, untuned)) if found is None or not found.best.values]
    if missing:
        return None, f"Not labelled, since {' and '.join(missing)} did not run: add optimizer={','.join(missing)}."
    return "discriminating", f"The best optimizer does better than {UNTUNED}, and than {NULL}."


def _better(others: Sequence[Contender], control: Contender, *, sign: float) -> bool:
    """Whether one of these does better than the control, and is told apart from it."""
    if not control.best.is_complete or not control.best.values:
        return True
    found = [difference(control.best.values, other.best.values) for other in others]
    apart = zip(found, ties(found), strict=True)
    return any(one is not None and not tied and sign * one.mean < 0.0 for one, tied in apart)
