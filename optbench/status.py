"""How far a sweep is: which of its planned trials are missing, running, failed or stale."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from optbench import lease
from optbench.lease import Holder
from optbench.measurement import Status
from optbench.store import Store
from optbench.stored import COLUMNS, Stored

_RERUN = ("sweep.rerun=", "+sweep.rerun=", "++sweep.rerun=")


@dataclass(frozen=True, kw_only=True)
class Planned:
    """A trial that the last command asked for.

    Attributes:
        id: of the trial.
        title: for people; the id where the plan has no titles.
        stored: its result, if there is one.
        reason: why it failed, if the result says so; its first line.
        log: where what it printed is kept, if it printed anything.
        holder: who is at it, if anyone is.
        differences: what is another one than when the result was made, in words.
    """

    id: str
    title: str
    stored: Stored | None
    reason: str | None
    log: str | None
    holder: Holder | None
    differences: Sequence[str]

    @property
    def status(self) -> Status | None:
        """Of its result."""
        return None if self.stored is None else self.stored.status

    def as_json(self) -> dict[str, Any]:
        """All that is known of it, in JSON's terms."""
        told: dict[str, Any] = {"id": self.id, "title": self.title, "status": self.status}
        if self.reason or (self.status is not None and self.status.failed):
            told |= {"reason": self.reason, "log": self.log}
        if self.holder is not None:
            told |= {"host": self.holder.host, "pid": self.holder.pid, "since": self.holder.since}
        if self.differences:
            told["differences"] = list(self.differences)
        return told


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far one sweep is, by the plan of its last command; without a plan, by all that is stored.

    Attributes:
        store: of the sweep.
        trials: all that were planned, in their order.
        command: the words after `optbench` that go on with what is missing; None where there is no plan.
    """

    store: Store
    trials: Sequence[Planned]
    command: Sequence[str] | None

    @property
    def running(self) -> list[Planned]:
        """Trials that a process is at."""
        return [trial for trial in self.trials if trial.holder is not None]

    @property
    def missing(self) -> list[Planned]:
        """Trials without a result that nobody is at."""
        return [trial for trial in self._idle if trial.stored is None]

    @property
    def failed(self) -> list[Planned]:
        """Trials that came to a bad end."""
        return [trial for trial in self._idle if trial.status is not None and trial.status.failed]

    @property
    def preempted(self) -> list[Planned]:
        """Trials that were stopped from outside; the same command goes on with them."""
        return [trial for trial in self._idle if trial.status is Status.PREEMPTED]

    @property
    def pruned(self) -> list[Planned]:
        """Trials that a search gave up."""
        return [trial for trial in self._idle if trial.status is Status.PRUNED]

    @property
    def done(self) -> list[Planned]:
        """Trials that succeeded."""
        return [trial for trial in self._idle if trial.status is not None and trial.status.succeeded]

    @property
    def stale(self) -> list[Planned]:
        """Trials whose result was made with other versions, at another commit or on another device."""
        return [trial for trial in self._idle if trial.differences]

    @property
    def is_complete(self) -> bool:
        """Whether all that was planned is stored, and none of it has failed."""
        return len(self.done) + len(self.pruned) == len(self.trials)

    @property
    def _idle(self) -> list[Planned]:
        return [trial for trial in self.trials if trial.holder is None]

    def as_json(self) -> dict[str, Any]:
        """The same for machines."""
        parts = ("missing", "running", "failed", "preempted", "pruned", "stale")
        return {
            "sweep": self.store.sweep,
            "folder": str(self.store.folder),
            "is_complete": self.is_complete,
            "num_planned": len(self.trials),
            "num_done": len(self.done),
            **{part: [trial.as_json() for trial in getattr(self, part)] for part in parts},
            "quarantined": list(map(str, self.store.quarantined)),
            "command": None if self.command is None else ["optbench", *self.command],
        }


def progress(store: Store) -> Progress:
    """How far a sweep is.

    Raises:
        UsageError: a later optbench wrote its plan or one of its results.
    """
    plan = store.read_plan()
    rows = {row["id"]: row for row in store.rows([*COLUMNS, "reason", "task", "optimizer", "seed"])}
    if plan is None:
        titles = {trial_id: f"{row['task']} {row['optimizer']} seed {row['seed']}" for trial_id, row in rows.items()}
    else:
        titles = {**dict.fromkeys(plan["ids"], ""), **dict(zip(plan["ids"], plan.get("titles", ()), strict=False))}
    holders = lease.held(store.folder)
    runs_here = True if plan is None else bool(plan.get("runs_here", True))
    trials = [
        _planned(
            trial_id,
            title or trial_id,
            row=rows.get(trial_id),
            store=store,
            holder=holders.get(trial_id),
            runs_here=runs_here,
        )
        for trial_id, title in titles.items()
    ]
    return Progress(store=store, trials=trials, command=None if plan is None else command(plan))


def command(plan: Mapping[str, Any]) -> list[str]:
    """The words after `optbench` that ask for the same trials once more, without what was to be run again."""
    words = list(map(str, plan.get("command") or ["sweep", *plan["overrides"]]))
    return [word for word in words if not word.startswith(_RERUN)]


def shell_line(words: Sequence[str]) -> str:
    """A command as a shell takes it, on one line whatever is in it; it is for people, and never run from here."""
    line = shlex.join(["optbench", *words])
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in line)


def _planned(
    trial_id: str,
    title: str,
    *,
    row: Mapping[str, Any] | None,
    store: Store,
    holder: Holder | None,
    runs_here: bool,
) -> Planned:
    stored = None if row is None else Stored.from_row(row)
    log = store.log(trial_id)
    has_failed = stored is not None and stored.status.failed
    reason = row["reason"] if row is not None else None
    return Planned(
        id=trial_id,
        title=title,
        stored=stored,
        reason=str(reason).strip().partition("\n")[0] if reason else None,
        log=str(log) if has_failed and log.exists() and log.stat().st_size else None,
        holder=holder,
        differences=[] if stored is None else stored.conditions.differences(runs_here=runs_here),
    )
