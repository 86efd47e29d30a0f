"""Asking a process of its own: questions as JSON on its standard input, answers as lines of JSON while they come."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from threading import Thread
from typing import Any, TextIO

from optbench.errors import UsageError
from optbench.executors import Interruption
from optbench.secrets import hidden

_SECONDS_BETWEEN_LOOKS = 0.1


class StoppedError(Exception):
    """A signal came while a question was under way."""


@dataclass(frozen=True, kw_only=True)
class Process:
    """A process that answers one question.

    Args:
        command: that starts it; the number of a descriptor for its answers is added.
        variables: of its environment.
        what: it is, for messages, such as `the probe`.
        interruption: ends it.
        max_seconds: that it may take.
    """

    command: Sequence[str]
    variables: Mapping[str, str]
    what: str
    interruption: Interruption | None = None
    max_seconds: float

    def ask(self, question: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
        """The answers as they come; the last one is a `failure` where the process did not come to its end.

        Raises:
            UsageError: it found a mistake in the question.
            StoppedError: a signal came.
        """
        with self.talk() as dialogue:
            dialogue.tell(question)
            dialogue.be_done()
            yield from dialogue.answers()

    @contextmanager
    def talk(self) -> "Iterator[Dialogue]":
        """Start it, for as long as the context lasts; several may be under way at a time."""
        reading, writing = os.pipe()
        process = subprocess.Popen(
            [*self.command, str(writing)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            pass_fds=[writing],
            env=dict(self.variables),
            start_new_session=True,
        )
        os.close(writing)
        said: list[bytes] = []
        too_long: list[str] = []
        assert process.stderr is not None
        listener = Thread(target=lambda: said.append(process.stderr.read()), daemon=True)  # type: ignore[union-attr]
        listener.start()
        Thread(target=self._watch, args=[process, too_long], daemon=True).start()

        def ended() -> str | None:
            code = process.wait()
            if self.interruption is not None and self.interruption.is_requested:
                raise StoppedError
            if not code:
                return None
            listener.join(timeout=1.0)
            return next(iter(too_long), None) or hidden(self._why(code, b"".join(said)))

        with os.fdopen(reading) as answers, process:
            try:
                yield Dialogue(process, answers, ended)
            finally:
                _end(process)

    def _watch(self, process: "subprocess.Popen[bytes]", too_long: list[str]) -> None:
        """End the process when it takes too long, or nobody waits for it any more."""
        deadline = time.monotonic() + self.max_seconds
        while process.poll() is None:
            if time.monotonic() >= deadline:
                too_long.append(f"{self.what} was ended after {self.max_seconds:g} s")
                break
            if self.interruption is not None and self.interruption.is_requested:
                break
            time.sleep(_SECONDS_BETWEEN_LOOKS)
        _end(process)  # the whole group: a process that it leaves behind would keep the answers open

    def _why(self, code: int, said: bytes) -> str:
        lines = said.decode(errors="replace").strip().splitlines()
        last = f": {lines[-1]}" if lines else ""
        if code < 0:
            of_memory = " (out of memory?)" if code == -signal.SIGKILL else ""
            return f"{self.what} was ended by signal {-code}{of_memory}{last}"
        return f"{self.what} ended with code {code}{last}"


class Dialogue:
    """What is said to a process under way, and what it answers.

    Args:
        process: that listens on its standard input.
        answers: lines of JSON.
        ended: waits for its end, and says what was wrong with that, if anything.
    """

    def __init__(self, process: "subprocess.Popen[bytes]", answers: TextIO, ended: Callable[[], str | None]) -> None:
        self._process = process
        self._answers = answers
        self._ended = ended

    def tell(self, what: Mapping[str, Any]) -> None:
        """A line of JSON; of a process that is no more, the answers tell."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(what).encode() + b"\n")
            self._process.stdin.flush()

    def be_done(self) -> None:
        """Nothing more is told."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()

    def hear(self) -> Mapping[str, Any] | None:
        """The next answer, or a last `failure`; None where it came to its end and all is well.

        Raises:
            UsageError: it found a mistake in what it was told.
            StoppedError: a signal came.
        """
        line = self._answers.readline()
        if line.endswith("\n"):  # else it was killed amid an answer
            answer: Mapping[str, Any] = json.loads(line)
            if "mistake" in answer:
                raise UsageError(answer["mistake"])
            return answer
        reason = self._ended()
        return None if reason is None else {"failure": reason}

    def answers(self) -> Iterator[Mapping[str, Any]]:
        """All that come, up to the end or to a `failure`."""
        while (answer := self.hear()) is not None:
            yield answer
            if answer.keys() == {"failure"} and self._process.poll() is not None:
                return


def _end(process: "subprocess.Popen[bytes]") -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
