"""What the index of a store holds of a result: a row for pandas, and the few columns by which trials are planned."""

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

from optbench import machine
from optbench.measurement import Status
from optbench.settings import identity

# The columns that `Stored` is made of.
CONDITIONS = ("config.hardware", "device", "num_threads", "commit", "packages")
COLUMNS = ("id", "status", "modified_ns", *CONDITIONS)


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """Where and with what a result was made, beside what its trial asks for.

    Attributes:
        asked_device: the trial's `hardware.device`.
        asked_threads: its `hardware.num_threads`.
        device: what it ran on; None where that is not known.
        num_threads: with so many; None where that is not known.
        commit: of optbench; None where it did not run from a checkout.
        packages: versions of optbench, torch and the optimizer's own package, as far as they were noted.
    """

    asked_device: str
    asked_threads: int
    device: str | None
    num_threads: int | None
    commit: str | None
    packages: tuple[tuple[str, str], ...]

    def differences(self, *, runs_here: bool = True) -> list[str]:
        """What is another one here and now, in words; a result that has such differences is stale.

        What was not noted, or cannot be known without training, is not compared: a commit where optbench runs from no
        checkout, packages that are not in `optbench.machine.PACKAGES`. Nor are changes that were not committed.

        Args:
            runs_here: whether the trial would run on this machine, so that its device can be told.
        """
        found = [
            f"{package} {was} -> {now or 'not installed'}"
            for package, was in self.packages
            if (now := machine.version(package)) != was
        ]
        if self.commit is not None and (commit := machine.commit()) not in (None, self.commit):
            found.append(f"commit {self.commit[:7]} -> {str(commit)[:7]}")
        if runs_here and self.device is not None and not machine.is_here(self.device, self.asked_device):
            devices = sorted(machine.device_names(self.asked_device))
            found.append(f"device {self.device} -> {' or '.join(devices) or 'no GPU'}")
        if self.num_threads not in (None, self.asked_threads):
            found.append(f"threads {self.num_threads} -> {self.asked_threads}")
        return found


class Stored(NamedTuple):
    """A result that is there, as far as planning looks at it; thousands are made at once.

    Attributes:
        status: how the run ended.
        modified_ns: when the result was last changed, in nanoseconds.
        conditions: where and with what it was made; one object for all results that have the same.
    """

    status: Status
    modified_ns: int
    conditions: Conditions

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Self:
        """From these columns of a row."""
        return cls(Status(row["status"]), int(row["modified_ns"]), _conditions(*(row[name] for name in CONDITIONS)))


@functools.lru_cache(maxsize=4096)
def _conditions(hardware: str, device: str, num_threads: float | None, *rest: Any) -> Conditions:
    asked, (commit, packages) = json.loads(hardware), rest
    return Conditions(
        asked_device=asked["device"],
        asked_threads=asked["num_threads"],
        device=None if device == "unknown" else device,
        num_threads=None if num_threads is None else int(num_threads),
        commit=commit,
        packages=tuple(json.loads(packages).items()),
    )


def row_of(record: Mapping[str, Any]) -> dict[str, Any]:
    """The row of a record, as the index has it."""
    environment, config = record["environment"], record["config"]
    what = {
        "id": record["id"],
        "task": config["task"]["name"],
        "optimizer": config["optimizer"]["name"],
        "setting": identity(config),
        "seed": config["seed"],
        "status": record["status"],
        **{f"config.{part}": json.dumps(value) for part, value in config.items() if part != "seed"},
    }
    versions = environment["packages"]
    concerned = {name: versions[name] for name in machine.packages_of(config["optimizer"]) if name in versions}
    where = {
        "device": environment["device"],
        "device_type": environment["device_type"],
        "num_threads": environment["num_threads"],
        "trials_at_a_time": environment.get("trials_at_a_time", 1),
        "torch": versions.get("torch"),
        "commit": environment["commit"],
        "packages": json.dumps(concerned),
    }
    figures = {
        name: json.dumps(value) if isinstance(value, (dict, list)) else value
        for name, value in {**record["summary"], **record["timing"]}.items()
    }
    # Once more at the end: no metric takes the place of another column, whatever its name.
    return {**what, **figures, **where, **what}
