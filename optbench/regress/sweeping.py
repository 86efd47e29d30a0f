"""A sweep of another environment: its own `optbench sweep`, in a process of its own, and what it has stored."""

import json
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from optbench.errors import Interrupted, UsageError
from optbench.regress.sides import Side
from optbench.secrets import hidden

_FAILED_TRIALS = 11
_MISTAKE = 2
_INTERRUPTED = (130, 143)


def sweep(
    side: Side, overrides: Sequence[str], *, name: str, results: Path, others: Sequence[str], configs: Path | None
) -> tuple[list[Mapping[str, Any]], str]:
    """Run a sweep.

    Args:
        side: whose optbench runs it.
        overrides: of the suite.
        name: of the sweep.
        results: a folder for it alone.
        others: more overrides, such as those of a logger.
        configs: a folder of more configs.

    Returns:
        The stored results, and why there may be too few of them.

    Raises:
        UsageError: the side finds a mistake in the overrides.
        Interrupted: a signal ended it.
    """
    command = [side.python, "-P", "-m", "optbench", "sweep", *overrides, *others, f"results={results}"]
    command += [f"sweep.name={name}", "cost.seconds=null"]
    command += [] if configs is None else ["--config-dir", str(configs.resolve())]
    done = subprocess.run(command, env=side.environ(), capture_output=True, text=True, check=False)
    last = hidden(" ".join(done.stderr.strip().splitlines()[-3:]))
    if done.returncode in _INTERRUPTED:
        raise Interrupted(done.returncode)
    if done.returncode == _MISTAKE:
        raise UsageError(f"{side.name}, trials {name}: {last}")
    records = []
    for file in sorted((results / name / "trials").glob("*.json")):
        with suppress(OSError, ValueError):
            records.append(json.loads(file.read_bytes()))
    reason = "" if done.returncode in (0, _FAILED_TRIALS) else f"the sweep ended with code {done.returncode}: {last}"
    return records, reason
