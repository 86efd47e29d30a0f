"""The verbs that are no Hydra application: `status`, `parity`, `reproduce`, `claims`, `report`, `list` and others."""

import argparse
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from optbench.cli import EXIT_FAILED_TRIALS
from optbench.errors import UsageError, unknown
from optbench.regress.verbs import baseline_verb, regress_verb


def parity_verb(arguments: list[str]) -> int:
    """Compare an optimizer with its paper's rule, or with others; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="optbench parity",
        description="Step an optimizer and the rule of its paper, or two optimizers, through the same gradients in "
        "float64, and say where they part.",
        epilog="optbench parity optimizer=adafactor; optbench parity optimizer=adamw,adamw_independent schedule=cosine",
    )
    parser.add_argument("override", nargs="*", help="optimizer..., schedule... or allow=, as for `optbench sweep`")
    overrides = parser.parse_args(arguments).override

    from optbench import allowlist
    from optbench.component import component, optimizer_component
    from optbench.composing import composing
    from optbench.parity import PARTS, parity
    from optbench.sweeper import split_allowed

    given, allowed = split_allowed(overrides)
    for line in given:
        if re.split(r"[.=@]", line.lstrip("+~"))[0] not in PARTS:
            raise UsageError(
                f"{line}: parity compares the updates of optimizers over gradients of its own, and uses none of this.\n"
                "It takes optimizer..., schedule... and allow=; leave this out."
            )
    with composing() as composer:
        configs = list(composer.configs([*given, "sweep=once"], one_trial=False))
        allowed += composer.packages_named(given)
    for part in PARTS:
        if any(not isinstance(config.get(part), Mapping) for config in configs):
            raise UsageError(f"{part} is missing: parity steps an optimizer under a schedule; leave ~{part} out.")
    for config in configs:
        optimizer = optimizer_component(config["optimizer"])
        parts = {
            "optimizer": optimizer,
            "optimizer.companion": optimizer.companion,
            "schedule": component(config["schedule"], group="schedule"),
        }
        called = [(group, part) for group, part in parts.items() if part is not None]
        allowlist.check_names(called, allowed=allowed)
        allowlist.check_targets(called, allowed=allowed)
    return parity(configs)


def reproduce_verb(arguments: list[str]) -> int:
    """Run what is missing of papers, and hold their tables against ours; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="optbench reproduce",
        description="Run what is missing of a paper's trials, and print its table beside ours, cell by cell, with a "
        "verdict. Exits with 0 if it is reproduced, 10 if it is not, 13 if more seeds are needed to tell, and 12 if "
        "something could not be run here.",
        epilog="optbench reproduce deepobs_quadratic; optbench reproduce paper=identities,quadratics --quick",
    )
    parser.add_argument(
        "paper", nargs="*", help="names of papers (optbench list papers), and overrides for all of their sweeps"
    )
    parser.add_argument("--quick", action="store_true", help="the cheaper subset that the paper's file declares")
    parser.add_argument("--rerun", action="append", default=[], metavar="STATUS", help="as for `optbench sweep`")
    parser.add_argument("--config-dir", type=Path, metavar="FOLDER", help="more configs; papers are in its paper/")
    parsed = parser.parse_intermixed_args(arguments)  # options may stand anywhere among the words

    from optbench.composing import composing, with_rerun
    from optbench.papers import shelf
    from optbench.papers.reproduce import reproduce
    from optbench.papers.running import Typed
    from optbench.sweeper import split_allowed

    names, given = shelf.split(parsed.paper)
    folder: Path | None = parsed.config_dir
    if folder is not None and not folder.is_dir():
        raise UsageError(f"--config-dir {folder}: there is no such folder.")
    if not names:
        raise UsageError(
            f"which paper? For example: optbench reproduce {shelf.names(folder)[0]}\nAll of them: optbench list papers"
        )
    papers = [shelf.find(name, folder) for name in names]
    given, allowed = split_allowed(given)
    given = with_rerun([*given, *(f"--rerun={words}" for words in parsed.rerun)])
    with composing(folder) as composer:
        typed = Typed(
            overrides=given,
            is_quick=parsed.quick,
            command=["reproduce", *arguments],
            allowed=[*allowed, *composer.packages_named(given)],
        )
        return reproduce(
            papers, typed, lambda overrides: list(composer.configs(overrides, one_trial=False)), results=_results(given)
        )


def _results(overrides: Sequence[str]) -> Path:
    """The folder that `results=` gives, or its default."""
    given = [line.partition("=")[2] for line in overrides if line.startswith("results=")]
    return Path(given[-1] if given else "results")


def claims_verb(arguments: list[str]) -> int:
    """List what is said of optimizers, with verdicts."""
    parser = argparse.ArgumentParser(
        prog="optbench claims",
        description="What is said of optimizers, with what the reproductions that were run here say of it.",
    )
    parser.add_argument("folder", nargs="?", default="results", help="the results folder (default: results)")
    parser.add_argument("--markdown", action="store_true", help="the page that docs/claims.md holds")
    parsed = parser.parse_args(arguments)

    from optbench.papers import claims

    folder = Path(parsed.folder.removeprefix("results="))
    if not folder.is_dir() and parsed.folder != "results":
        raise UsageError(f"{folder}: there is no such folder of results.")
    found = claims.listed(folder)
    if parsed.markdown:
        print(claims.page(found), end="")
    else:
        claims.show(found)
    return 0


def report_verb(arguments: list[str]) -> int:
    """Print tables, and write a page of what is stored."""
    parser = argparse.ArgumentParser(
        prog="optbench report",
        description="From the store alone: print the tables, and write a page, tables and pictures. With logger=wandb, "
        "tensorboard or csv, and logger.key=value, they are tracked there too.",
        epilog="optbench report results optimizer=lion,adamw task=digits_mlp optimizer.lr=0.001; "
        "optbench report logger=wandb logger.mode=offline",
    )
    parser.add_argument(
        "folder",
        nargs="*",
        help="results folders, or sweeps in one (default: results); key=value,value filters trials; logger=NAME and "
        "logger.key=value, as for `optbench sweep`, say where the tables and the page are tracked",
    )
    parser.add_argument("--all", action="store_true", help="every stored trial, not those of the last command alone")
    parser.add_argument(
        "--out", type=Path, metavar="FOLDER", help="where to write (default: report in the first folder)"
    )
    parser.add_argument("--svg", type=Path, metavar="FILE", help="also write a picture of the tables")
    parsed = parser.parse_args(arguments)

    from optbench import destination
    from optbench.reporting import make_report

    words, tracking = destination.split(parsed.folder)
    tracked = destination.tracked(tracking) if tracking else None
    make_report(words, everything=parsed.all, out=parsed.out, svg=parsed.svg, tracked=tracked)
    return 0


def status_verb(arguments: list[str]) -> int:
    """Name the trials that are missing, running, failed or stale; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="optbench status",
        description="Which trials of the last command of each sweep are missing, running, failed or stale. "
        "Exits with 0 if all are stored and none has failed, with 11 otherwise.",
    )
    parser.add_argument("folder", nargs="*", default=["results"], help="a results folder, or one sweep in it")
    parser.add_argument("--all", action="store_true", help="lists in full")
    parser.add_argument("--json", action="store_true", help="the same for machines")
    parsed = parser.parse_args(arguments)

    from optbench.overview import show_status

    is_complete = show_status(parsed.folder, everything=parsed.all, as_json=parsed.json)
    return 0 if is_complete else EXIT_FAILED_TRIALS


def list_verb(arguments: list[str]) -> int:
    """Show what can be chosen."""
    from optbench.catalogue import GROUPS, PAPER, SUITE, entries
    from optbench.console import show_choices, show_optimizers
    from optbench.pages import optimizers_page

    listed = (*GROUPS, PAPER, SUITE)

    parser = argparse.ArgumentParser(prog="optbench list", description="What can be chosen, a line each.")
    parser.add_argument("group", nargs="?", help=f"one of: {', '.join(listed)} (default: all)")
    parser.add_argument("--markdown", action="store_true", help="of optimizers and papers: the pages in docs/")
    parsed = parser.parse_args(arguments)
    singular = {f"{group}s": group for group in listed}  # `optbench list optimizers` reads well
    asked = singular.get(parsed.group, parsed.group)
    if asked is not None and asked not in listed:
        raise unknown("group", asked, listed)

    if asked == PAPER:
        from optbench.papers import listing  # pandas takes its time

        print(listing.page(), end="") if parsed.markdown else listing.show()
    elif parsed.markdown:
        if asked != "optimizer":
            raise UsageError("--markdown is of optimizers and papers: optbench list optimizers --markdown")
        print(optimizers_page(), end="")
    elif asked == "optimizer":
        found = entries(asked)
        show_optimizers([entry for entry in found if "/" not in entry.name])
        show_choices(asked, [entry for entry in found if "/" in entry.name])
    else:
        for group in listed if asked is None else (asked,):
            show_choices(group, entries(group))
    return 0


VERBS: Mapping[str, Callable[[list[str]], int]] = {
    "status": status_verb,
    "parity": parity_verb,
    "reproduce": reproduce_verb,
    "claims": claims_verb,
    "report": report_verb,
    "list": list_verb,
    "regress": regress_verb,
    "baseline": baseline_verb,
}
