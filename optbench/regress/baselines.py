"""Accepted baselines: `results/baselines/<machine>/<suite>.json`, changed by `optbench baseline accept` alone."""

import hashlib
import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from optbench import machine
from optbench.console import warn
from optbench.folder import Folder
from optbench.parsing import finite
from optbench.regress import readings as reading
from optbench.regress.findings import Answer
from optbench.regress.night import Against, BaselineState, Night
from optbench.regress.readings import Final, Readings, Sample

SCHEMA = 1
FOLDER = "baselines"


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What baselines are pinned to: figures of another one are no measure of this one's.

    Attributes:
        fingerprint: a name of a folder, the same as long as the parts are.
        words: the parts, in words.
    """

    fingerprint: str
    words: str


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """An accepted baseline.

    Attributes:
        suite: its name.
        machine: the fingerprint of where it was measured.
        readings: what was measured.
        accepted: when, why, and of which commit: the latest last.
    """

    suite: str
    machine: str
    readings: Readings
    accepted: Sequence[Mapping[str, Any]]


class UnusableError(Exception):
    """A file is there and holds no baseline; the message says why."""


def this_machine() -> Machine:
    """The processor, its cores and the GPUs, as far as optbench may use them; no name of a host, which says nothing."""
    parts = [machine.cpu_name(), f"{os.cpu_count()} cores", *(gpu.name for gpu in machine.gpus())]
    words = ", ".join(parts)
    plain = re.sub(r"[^a-z0-9]+", "-", words.lower()).strip("-")
    return Machine(fingerprint=f"{plain[:48].rstrip('-')}-{_sha256(words)[:6]}", words=words)


def path(results: Path, suite: str, fingerprint: str) -> Path:
    """Where a baseline is, or will be."""
    return results / FOLDER / fingerprint / f"{suite}.json"


def read(file: Path, *, fingerprint: str) -> Baseline:
    """A baseline from its file, whose name is that of its suite.

    Raises:
        FileNotFoundError: there is none.
        UnusableError: it was changed by other means than `accept`, is of another machine, or of a later optbench.
    """
    content = file.read_bytes()
    try:
        record = json.loads(content)
        digest = record.pop("sha256")
        if _sha256(_canonical(record)) != digest:
            raise UnusableError("its content is not what was accepted: its SHA-256 is another")
        if record["schema"] > SCHEMA:
            raise UnusableError(f"it was written in schema {record['schema']}, by a later optbench")
        if record["version"] != reading.VERSION:
            raise UnusableError("it was measured by another instrument, so that its figures are no measure of these")
        found = Baseline(
            suite=record["suite"],
            machine=record["machine"],
            readings=reading.from_json(record["readings"]),
            accepted=list(record["accepted"]),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UnusableError(f"it cannot be read ({type(error).__name__}: {error})") from error
    if found.machine != fingerprint:
        raise UnusableError(f"it was measured on another machine: {found.machine}")
    if found.suite != file.stem:
        raise UnusableError(f"it is of another suite: {found.suite}")
    return found


def find(results: Path, suite: str) -> tuple[Baseline | None, Against]:
    """The baseline of this machine, and what there is to say of it.

    Args:
        results: the folder of all sweeps.
        suite: the name of one.
    """
    here = this_machine()
    file = path(results, suite, here.fingerprint)
    accept = f"To accept this run: optbench baseline accept suite={suite} --reason '...'"
    try:
        found = read(file, fingerprint=here.fingerprint)
    except FileNotFoundError:
        others = sorted(one.parent.name for one in (results / FOLDER).glob(f"*/{suite}.json"))
        known = f" There are baselines of other machines: {', '.join(others[:5])}." if others else ""
        note = f"There is no baseline of this machine, {here.words}: {file} is not there.{known} {accept}"
        return None, Against(kind="stored", name="nothing", state="other machine" if others else "missing", note=note)
    except UnusableError as error:
        states: Mapping[str, BaselineState] = {"another machine": "other machine", "another suite": "other suite"}
        state: BaselineState = next((state for words, state in states.items() if words in str(error)), "corrupt")
        note = f"{file}: {error}. Bring back the accepted file (git checkout {file}), or put it away. {accept}"
        return None, Against(kind="stored", name=str(file), state=state, note=note)
    except OSError as error:
        note = f"{file} cannot be read: {error.strerror}."
        return None, Against(kind="stored", name=str(file), state="corrupt", note=note)
    last = found.accepted[-1]
    return found, Against(kind="stored", name=f"the baseline of {last['when']} ({last['reason']})")


def write(results: Path, night: Night, *, reason: str, when: str) -> tuple[Path, list[str]]:
    """Accept what a night measured as the baseline of its machine.

    Args:
        results: the folder of all sweeps.
        night: which; of this machine.
        reason: why, for whoever reads it later.
        when: UTC.

    Returns:
        The file, and in words what is left out: later nights have nothing to hold that against, and say so.

    Raises:
        OSError: the folder cannot be written to.
    """
    file = path(results, night.suite, night.machine)
    earlier: Sequence[Mapping[str, Any]] = []
    replaced = None
    if file.is_file():
        replaced = _sha256(file.read_bytes().decode(errors="replace"))
        try:
            earlier = read(file, fingerprint=night.machine).accepted
        except UnusableError as error:
            warn(f"{file}: {error}. Which baselines it had replaced is lost with it.")
    kept, left_out = _usable(night)
    environment = night.readings.environment
    entry = {"when": when, "reason": reason, "night": night.started, "commit": environment.get("commit")}
    record = {
        "schema": SCHEMA,
        "version": reading.VERSION,
        "suite": night.suite,
        "digest": night.digest,
        "machine": night.machine,
        "machine_words": night.machine_words,
        "accepted": [*earlier, {**entry, "replaced": replaced}],
        "readings": finite(reading.as_json(kept)),
    }
    sealed = {**record, "sha256": _sha256(_canonical(record))}
    folder = Folder(file.parent)
    folder.write(file.name, json.dumps(sealed, indent=1, sort_keys=True, allow_nan=False) + "\n")
    return file, left_out


def _usable(night: Night) -> tuple[Readings, list[str]]:
    """The readings without what is no figure or only noise, and in words what is left out."""
    found = night.readings
    noisy = {one.subject for one in night.findings if one.kind == "time" and one.answer is Answer.UNKNOWN}
    samples = {
        subject: own
        for subject, own in found.samples.items()
        if own and all(map(_is_sound, own)) and subject not in noisy
    }
    finals = {subject: own for subject, own in found.finals.items() if _is_whole(own)}
    broken = [one.name for one in night.findings if one.answer is Answer.BROKEN]
    lost = [f"step time of {subject}" for subject in found.samples if subject not in samples]
    lost += [f"final loss of {subject}" for subject in found.finals if subject not in finals]
    kept = replace(found, finals=finals, samples=samples)
    return kept, sorted({*broken, *lost})


def _is_sound(sample: Sample) -> bool:
    return all(isinstance(value, (int, float)) and 0.0 < value < math.inf for value in vars(sample).values())


def _is_whole(finals: Mapping[str, Final]) -> bool:
    """Whether each seed either has a loss or diverged, which is a result, too."""
    return bool(finals) and all(final.loss is not None or final.status == "diverged" for final in finals.values())


def _canonical(record: Mapping[str, Any]) -> str:
    return json.dumps(record, sort_keys=True, separators=(",", ":"))


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
