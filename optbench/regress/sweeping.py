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
_INTERRUPTED = (129, 130, 143)
_GRACE_SECONDS = 40.0


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
    # For Hydra, to which a comma would make a list.
    quoted = str(results.resolve()).replace("\\", "\\\\").replace('"', '\\"')
    command = [side.python, "-P", "-m", "optbench", "sweep", *overrides, *others, f'results="{quoted}"']
    command += ["sweep=once", f"sweep.name={name}", "cost.seconds=null"]
    command += [] if configs is None else ["--config-dir", str(configs.resolve())]
    code, said = _run(command, side)
    last = hidden(" ".join(said.strip().splitlines()[-3:]))
    if code in _INTERRUPTED:
        raise Interrupted(code)
    if code == _MISTAKE:
        raise UsageError(f"{side.name}, trials {name}: {last}")
    records = []
    for file in sorted((results / name / "trials").glob("*.json")):
        with suppress(OSError, ValueError):
            records.append(json.loads(file.read_bytes()))
    reason = "" if code in (0, _FAILED_TRIALS) else f"the sweep ended with code {code}: {last}"
    return records, reason


def _run(command: Sequence[str], side: Side) -> tuple[int, str]:
    """The code with which it ends, and what it says on standard error; it ends with whoever waits for it."""
    with subprocess.Popen(
        command, env=side.environ(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            _, said = process.communicate()
        except BaseException:
            process.terminate()  # it asks its own workers to stop
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=_GRACE_SECONDS)
            process.kill()
            raise
    return process.returncode, said
