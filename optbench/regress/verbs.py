"""`optbench regress` and `optbench baseline`."""

import argparse
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from optbench.errors import UsageError, unknown

if TYPE_CHECKING:
    from optbench.regress.suite import Suite

DEFAULT_SUITE = "nightly"
_KEYS = ("suite", "against", "results", "logger", "allow")


def regress_verb(arguments: list[str]) -> int:
    """Measure a suite and hold it against a baseline; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="optbench regress",
        description="Measure every optimizer of a suite (optbench list nightly), and hold loss, memory and time "
        "against the accepted baseline of this machine, or against another environment that is measured beside this "
        "one. Exits with 0 if nothing is worse, 10 for a confirmed regression, 12 without a usable baseline, 11 if "
        "something could not be measured, 13 if the machine was too noisy to tell, 2 for a mistake.",
        epilog="optbench regress suite=quick; optbench regress suite=nightly --against HEAD~1; "
        "optbench regress --against torch==2.11.0 logger=wandb",
    )
    parser.add_argument(
        "word", nargs="*", help="suite=NAME (default: nightly), results=FOLDER, logger=NAME and its keys"
    )
    parser.add_argument(
        "--against",
        metavar="WHAT",
        help="a git commit, pins such as torch==2.11.0, or a wheel, instead of the baseline",
    )
    parser.add_argument("--allow-unknown", action="store_true", help="exit with 0 where noise is all that is wrong")
    parser.add_argument("--config-dir", type=Path, metavar="FOLDER", help="more configs; suites are in its nightly/")
    parsed = parser.parse_intermixed_args(arguments)
    given = _split(parsed.word)
    folder = _folder(parsed.config_dir)

    from optbench import destination
    from optbench.composing import composing
    from optbench.regress import benchmarks, gate, measuring, sides, suite

    chosen = suite.find(given.suite, folder)
    against = given.against if parsed.against is None else parsed.against
    if against is not None:
        sides.check(against)
    _check_device(chosen)
    if chosen.benchmarks is not None:
        benchmarks.file_of(chosen.benchmarks)
    tracked = destination.tracked(given.tracked) if given.tracked else None
    with composing(folder) as composer:
        plan = measuring.compose(chosen, lambda lines: composer.configs(lines, one_trial=False), folder=folder)
    return gate.regress(
        gate.Asked(
            plan=plan,
            results=given.results,
            against=against,
            allows_unknown=parsed.allow_unknown,
            overrides=given.tracked,
            tracked=tracked,
        )
    )


def baseline_verb(arguments: list[str]) -> int:
    """Accept a run as the baseline of this machine, or show which baselines there are."""
    parser = argparse.ArgumentParser(
        prog="optbench baseline",
        description="`accept` makes the last run of a suite on this machine the baseline that later ones are held "
        "against: results/baselines/<machine>/<suite>.json. `list` shows those that there are, and why.",
        epilog="optbench baseline accept suite=nightly --reason 'torch 2.14'",
    )
    parser.add_argument("action", choices=["accept", "list"])
    parser.add_argument("word", nargs="*", help="suite=NAME (default: nightly), results=FOLDER")
    parser.add_argument("--reason", help="why, for whoever reads it later; needed to accept")
    parser.add_argument("--run", metavar="STARTED", help="another run than the last one, such as 2026-11-28T03:17:00Z")
    parsed = parser.parse_intermixed_args(arguments)
    given = _split(parsed.word)
    if given.tracked or given.against:
        raise UsageError("optbench baseline takes suite= and results= alone.")

    from optbench.regress import accepting

    if parsed.action == "list":
        accepting.show(given.results)
        return 0
    reason = (parsed.reason or "").strip()
    if not reason:
        raise UsageError(
            "a baseline is what all later runs are held against: say why this one is right.\n"
            f"optbench baseline accept suite={given.suite} --reason '...'"
        )
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    accepting.accept(given.results, given.suite, run=parsed.run, reason=reason, when=now)
    return 0


class _Given:
    """The words of a command line: `suite=`, `results=`, `against=`, and what is for the logger."""

    def __init__(self) -> None:
        self.suite = DEFAULT_SUITE
        self.results = Path("results")
        self.against: str | None = None
        self.tracked: list[str] = []


def _split(words: Sequence[str]) -> _Given:
    from optbench import destination

    found = _Given()
    others, found.tracked = destination.split(words)
    if len(plain := [word for word in others if "=" not in word]) > 1:
        raise UsageError(f"{' '.join(plain)}: one suite at a time.")
    for word in others:
        key, equals, value = word.partition("=")
        match key if equals else "":
            case "" | "suite":
                found.suite = value if equals else word
            case "results":
                found.results = Path(value)
            case "against":
                found.against = value
            case _:
                raise UsageError(
                    f"{unknown('key', key, _KEYS)}\nWhat a suite measures stands in its file, so that every night asks "
                    "the same: copy one into FOLDER/nightly, change it, and add --config-dir FOLDER."
                )
    return found


def _folder(folder: Path | None) -> Path | None:
    if folder is not None and not folder.is_dir():
        raise UsageError(f"--config-dir {folder}: there is no such folder.")
    return folder


def _check_device(suite: "Suite") -> None:
    from optbench.executors.devices import gpus

    if suite.needs == "cuda" and not gpus():
        raise UsageError(
            f"suite {suite.name} needs a CUDA GPU, and there is none here. Suites for processors: nightly, quick."
        )
