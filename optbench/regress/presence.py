"""Whether a figure is on both sides, and of the same question."""

from optbench.regress.findings import Answer
from optbench.regress.readings import Readings

ANOTHER_QUESTION = "its overrides are others than the baseline's, so that the two are not to be compared"


def presence(
    subject: str, before: object | None, now: object | None, *, old: Readings, new: Readings
) -> tuple[Answer | None, str]:
    """The answer where a figure is not on both sides, or not of the same question; None where they can be compared."""
    if now is None:
        reason = new.failures.get(subject, "")
        if subject in new.asked:
            return Answer.BROKEN, reason
        return Answer.MISSING, "the suite no longer asks for it"
    if before is None:
        reason = old.failures.get(subject, "")
        return Answer.NEW, f"the other side has no figure: {reason}" if reason else "the baseline does not have it"
    if old.asked.get(subject) != new.asked.get(subject):
        return Answer.UNKNOWN, ANOTHER_QUESTION
    return None, ""
