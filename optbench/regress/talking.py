"""The talk with a process that times steps: block by block, as it is told."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from optbench.asking import Dialogue
from optbench.regress.readings import Sample


@dataclass(frozen=True)
class Taken:
    """What one process has timed.

    Attributes:
        samples: by subject.
        environment: of the process; empty where it did not come to tell.
        failures: why subjects have none.
    """

    samples: Mapping[str, Sample]
    environment: Mapping[str, Any]
    failures: Mapping[str, str]


class Talk:
    """A talk under way; with a process that is no more it goes on without effect.

    Args:
        dialogue: with the process.
        question: what it is to prepare.
    """

    def __init__(self, dialogue: Dialogue, question: Mapping[str, Any]) -> None:
        self._dialogue = dialogue
        self._samples: dict[str, Sample] = {}
        self._environment: Mapping[str, Any] = {}
        self._failures: dict[str, str] = {}
        self._is_over = False
        dialogue.tell(question)

    def until(self, key: str) -> None:
        """Hear it until it says this, or is no more."""
        while not self._is_over:
            answer = self._dialogue.hear()
            if answer is None:
                self._is_over = True
                return
            self._note(answer)
            if key in answer:
                return

    def block(self, subject: str, *, seconds: float) -> None:
        """Have it take steps of a subject for so long, while all others wait."""
        if not self._is_over:
            self._dialogue.tell({"subject": subject, "seconds": seconds})
            self.until("done")

    def finished(self, subjects: Sequence[str]) -> Taken:
        """What it has timed of these."""
        self._dialogue.be_done()
        self.until("nothing more")
        failures = spread(self._failures, subjects, self._samples)
        return Taken(self._samples, self._environment, failures)

    def _note(self, answer: Mapping[str, Any]) -> None:
        if "environment" in answer:
            self._environment = {key: value for key, value in answer["environment"].items() if key != "host"}
        elif "sample" in answer:
            self._samples[answer["subject"]] = Sample(**answer["sample"])
        elif "failure" in answer:
            self._failures[answer.get("subject", "")] = answer["failure"]
            self._is_over = "subject" not in answer


def spread(failures: Mapping[str, str], subjects: Iterable[str], found: Mapping[str, object]) -> dict[str, str]:
    """The failures by subject; that of the whole process counts for those that have nothing."""
    own = {subject: reason for subject, reason in failures.items() if subject}
    if reason := failures.get(""):
        own |= {subject: reason for subject in subjects if subject not in found and subject not in own}
    return own
