"""Whether a figure is on both sides, and of the same question."""

from optbench.regress.findings import Answer
from optbench.regress.readings import Readings

ANOTHER_QUESTION = "its overrides are others than the baseline's"


def presence(
    subject: str, before: object | None, now: object | None, *, old: Readings, new: Readings
) -> tuple[Answer | None, str]:
    """The answer where a figure is not on both sides, or not of the same question; None where they can be compared."""
    if now is None:
        if subject in new.asked:
            return Answer.BROKEN, new.failures.get(subject, "")
        return Answer.MISSING, ""
    if before is None:
        if subject not in old.asked:
            return Answer.NEW, ""
        reason = old.failures.get(subject, "")
        return Answer.UNCOMPARED, f"the other side has no figure{f': {reason}' if reason else ''}"
    if old.asked.get(subject) != new.asked.get(subject):
        return Answer.UNCOMPARED, ANOTHER_QUESTION
    return None, ""
