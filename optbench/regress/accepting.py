"""`optbench baseline`: what a run measured becomes what later ones are held against."""

import json
from pathlib import Path

import pandas as pd
from rich.markup import escape

from optbench.console import console, warn
from optbench.errors import UsageError
from optbench.regress import baselines
from optbench.regress.gate import FOLDER
from optbench.regress.night import Night, from_json
from optbench.regress.showing import RUNS
from optbench.terminal import rich_table


def accept(results: Path, suite: str, *, run: str | None, reason: str, when: str) -> None:
    """Accept a run of this machine, and say what it changes.

    Args:
        results: the folder of all sweeps.
        suite: the name of one.
        run: when it started; None is the last one.
        reason: why.
        when: UTC.

    Raises:
        UsageError: there is no such run of this machine, or the baseline cannot be written.
    """
    night = _night(results, suite, run)
    try:
        file, left_out = baselines.write(results, night, reason=reason, when=when)
    except OSError as error:
        raise UsageError(f"{results} cannot be written to: {error}.") from error
    if left_out:
        warn(
            f"left out, since there is no figure or only noise: {', '.join(left_out)}. Later runs end with 12 for it; "
            "better accept a run that has it."
        )
    page = console()
    page.print(
        f"Accepted: {escape(suite)} {night.started} on {escape(night.machine_words)}, {len(night.findings)} metrics.",
        soft_wrap=True,
    )
    page.print(f"[dim]Written: {escape(str(file))}; keep it in git.[/]", soft_wrap=True)


def show(results: Path) -> None:
    """List the baselines that there are."""
    here = baselines.this_machine()
    lines = []
    for file in sorted((results / baselines.FOLDER).glob("*/*.json")):
        fingerprint = file.parent.name
        this = " (this one)" if fingerprint == here.fingerprint else ""
        line = {"suite": file.stem, "machine": f"{fingerprint}{this}"}
        try:
            found = baselines.read(file, fingerprint=fingerprint)
        except (OSError, baselines.UnusableError) as error:
            lines.append({**line, "accepted": "-", "times": "-", "reason": f"not usable: {error}"})
            continue
        last = found.accepted[-1]
        lines.append({**line, "accepted": last["when"], "times": str(len(found.accepted)), "reason": last["reason"]})
    if not lines:
        console().print(
            f"No baseline below {results / baselines.FOLDER}. After a run: optbench baseline accept --reason '...'"
        )
        return
    console().print(rich_table(pd.DataFrame(lines), title="Baselines"))


def _night(results: Path, suite: str, run: str | None) -> Night:
    folder = results / FOLDER / suite / RUNS
    here = baselines.this_machine().fingerprint
    seen = []
    for file in sorted(folder.glob("*.json"), reverse=True):
        try:
            night = from_json(json.loads(file.read_bytes()))
        except (OSError, ValueError, KeyError, TypeError):
            warn(f"{file}: it holds no run; passed over.")
            continue
        if night.machine == here and run in (None, night.started, file.stem):
            return night
        seen.append(night)
    if run is not None and seen:
        known = ", ".join(night.started for night in seen if night.machine == here)
        raise UsageError(f"--run {run}: there is no such run of this machine. There are: {known or 'none'}.")
    where = "there are runs of other machines alone" if seen else "there is no run"
    raise UsageError(f"{folder}: {where}. First: optbench regress suite={suite}")
