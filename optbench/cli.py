"""The command line: `run`, `sweep`, `plan`, `cost`, `fit`, `status`, `parity`, `report`, `list`.

The first five take overrides in Hydra's grammar and Hydra's own options (`--cfg job`, `--config-dir`, `--help`, tab
completion); without a verb the command is a plain Hydra application, so `optbench -m key=value,value` is a sweep too.
"""

import argparse
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from string import Template

from optbench import __version__
from optbench.errors import Interrupted, UsageError, unknown
from optbench.secrets import check_overrides, masked

EXIT_FAILED_TRIALS = 11
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command and exit with its code: 0, 2 for a mistake, 11 for failed trials, 130 when interrupted."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        check_overrides(arguments)
        code = _dispatch(arguments)
    except UsageError as error:
        print(f"optbench: {masked(str(error), arguments)}", file=sys.stderr)
        code = EXIT_USAGE
    except BrokenPipeError:  # the reader, `head` for example, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except (Interrupted, KeyboardInterrupt) as error:
        print(
            "optbench: interrupted; what had finished is stored, the same command runs the rest.",
            file=sys.stderr,
        )
        code = error.exit_code if isinstance(error, Interrupted) else EXIT_INTERRUPTED
    sys.exit(code)


def _dispatch(arguments: list[str]) -> int:
    verbs: Mapping[str, Callable[[list[str]], int]] = {
        "run": lambda rest: _hydra(rest, verb="run"),
        "sweep": lambda rest: _hydra(rest, verb="sweep", multirun=True),
        "plan": lambda rest: _hydra(rest, verb="plan", multirun=True),
        "cost": lambda rest: _hydra(rest, verb="cost", multirun=True),
        "fit": lambda rest: _hydra(rest, verb="fit", multirun=True),
        "status": _status,
        "parity": _parity,
        "report": _report,
        "list": _list,
    }
    if not arguments:
        return _hydra(["--help"])
    first, *rest = arguments
    if first in verbs:
        return verbs[first](rest)
    if first == "--version":
        print(f"optbench {__version__}")
        return 0
    if first.startswith(("-", "+", "~")) or "=" in first:
        return _hydra(arguments)
    raise unknown("command", first, verbs)


def _hydra(arguments: list[str], *, verb: str | None = None, multirun: bool = False) -> int:
    """The verbs that take configs, and what any Hydra application answers: --help, --cfg, --info, completion."""
    from hydra._internal.utils import get_args_parser

    from optbench.sweeper import ALLOW, OptbenchSweeper, register

    arguments = _with_rerun(arguments)
    typed = [*([verb] if verb else []), *arguments]
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # Hydra raises its errors, and we word them
    register()
    parsed = get_args_parser().parse_args(arguments)
    allowing = [line for line in parsed.overrides if line.startswith(ALLOW)]
    arguments = [line for line in arguments if line not in allowing]
    with _hydra_errors():
        if parsed.config_path is not None:
            raise UsageError("--config-path: optbench needs its own configs. Add a folder to them with --config-dir.")
        if parsed.config_name is not None:
            _check_primary(parsed.config_name, parsed.config_dir)
        if parsed.help and parsed.config_dir is None:
            print(_help([line for line in parsed.overrides if line not in allowing]))
            return 0
        if any((parsed.help, parsed.hydra_help, parsed.cfg, parsed.info, parsed.shell_completion)):
            _hide_verb_from_completion()
            _application(arguments)
            return 0
        OptbenchSweeper.arguments = [line for line in parsed.overrides if not line.lstrip("+~").startswith("hydra")]
        OptbenchSweeper.one_trial = not (multirun or parsed.multirun)
        OptbenchSweeper.num_failed = 0
        OptbenchSweeper.verb = verb
        OptbenchSweeper.command = typed
        others = [line for line in arguments if line not in OptbenchSweeper.arguments]
        _application(others if parsed.multirun else [*others, "--multirun"])
        return EXIT_FAILED_TRIALS if OptbenchSweeper.num_failed else 0


def _with_rerun(arguments: list[str]) -> list[str]:
    """`--rerun failed,stale` as the override that it stands for."""
    from optbench.plan import statuses_of

    others: list[str] = []
    words: list[str] = []
    waiting = iter(arguments)
    for argument in waiting:
        option, equals, value = argument.partition("=")
        if option == "--rerun":
            words += re.split(r"[,\s]+", value if equals else next(waiting, ""))
        else:
            others.append(argument)
    if not words:
        return arguments
    statuses_of(words)
    if any(line.lstrip("+").startswith("sweep.rerun=") for line in others):
        raise UsageError("--rerun and sweep.rerun=: both say what to run again. Leave one of them out.")
    return [*others, f"sweep.rerun=[{','.join(dict.fromkeys(words))}]"]


def _check_primary(name: str, folder: str | None) -> None:
    """Refuse a primary config that sets what Hydra itself would call: nothing else stands between a file and that."""
    from hydra._internal.config_loader_impl import ConfigLoaderImpl
    from hydra._internal.utils import create_config_search_path
    from hydra.types import RunMode
    from omegaconf import OmegaConf

    from optbench.compose import CONFIG_NAME

    searchpath = create_config_search_path("pkg://optbench.conf")
    if folder is not None:
        searchpath.prepend("command-line", f"file://{Path(folder).resolve()}", anchor="schema")
    loader = ConfigLoaderImpl(config_search_path=searchpath)
    theirs, ours = (
        loader.load_configuration(config, overrides=[], run_mode=RunMode.RUN).hydra for config in (name, CONFIG_NAME)
    )
    for key in ("callbacks", "launcher", "sweeper", "job_logging", "hydra_logging"):
        if OmegaConf.to_container(theirs[key]) != OmegaConf.to_container(ours[key]):
            raise UsageError(f"{name}: it sets hydra.{key}, which Hydra would call. Leave that out of the config.")


def _application(arguments: Sequence[str]) -> None:
    """Call the Hydra application as the shell would."""
    import hydra

    from optbench.compose import CONFIG_NAME
    from optbench.sweeper import hydra_version

    previous = sys.argv
    sys.argv = ["optbench", *arguments]
    try:
        hydra.main(config_path="pkg://optbench.conf", config_name=CONFIG_NAME, **hydra_version())(_not_ours)()
    finally:
        sys.argv = previous


def _not_ours(_: object) -> None:
    raise UsageError("hydra/sweeper: trials are run by optbench's own sweeper alone; leave this override out.")


@contextmanager
def _hydra_errors() -> Iterator[None]:
    """Hydra's errors in our words."""
    from hydra.errors import HydraException, MissingConfigException
    from omegaconf.errors import OmegaConfBaseException

    try:
        yield
    except MissingConfigException as error:
        group, _, option = str(error.missing_cfg_file).rpartition("/")
        if not error.options:
            raise UsageError(str(error)) from error
        raise unknown(group, option, error.options) from error
    except (HydraException, OmegaConfBaseException) as error:
        cause = f": {error.__cause__}" if error.__cause__ else ""
        raise UsageError(f"{error}{cause}") from error


def _help(overrides: Sequence[str]) -> str:
    """What Hydra's --help says, in a fraction of the time that it takes to list all its groups."""
    from hydra import compose, initialize_config_module
    from omegaconf import OmegaConf, open_dict

    from optbench.catalogue import GROUPS, names
    from optbench.compose import CONFIG_NAME
    from optbench.sweeper import hydra_version

    with initialize_config_module("optbench.conf", **hydra_version()):
        config = compose(CONFIG_NAME, overrides=list(overrides), return_hydra_config=True)
    template = Template(config.hydra.help.template)
    with open_dict(config):
        del config["hydra"]
    groups = "\n".join(f"{group}: {', '.join(names(group))}" for group in sorted(GROUPS))
    return template.substitute(APP_CONFIG_GROUPS=groups, CONFIG=OmegaConf.to_yaml(config))


def _hide_verb_from_completion() -> None:
    """The shell hands over its line with our verb in it, which Hydra would take for an override."""
    line = os.environ.get("COMP_LINE", "")
    without = re.sub(r"^(\S+\s+)(run|sweep|plan|cost|fit)\s+", r"\1", line)
    if without != line:
        os.environ["COMP_LINE"] = without
        point = int(os.environ.get("COMP_POINT", len(line)))
        os.environ["COMP_POINT"] = str(max(point - len(line) + len(without), 0))


def _parity(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="optbench parity",
        description="Step an optimizer and the rule of its paper, or two optimizers, through the same gradients in "
        "float64, and say where they part.",
        epilog="optbench parity optimizer=adafactor; optbench parity optimizer=adamw,adamw_independent schedule=cosine",
    )
    parser.add_argument("override", nargs="*", help="optimizer..., schedule... or allow=, as for `optbench sweep`")
    overrides = parser.parse_args(arguments).override

    from hydra import initialize_config_module
    from hydra.core.global_hydra import GlobalHydra

    from optbench import allowlist
    from optbench.component import component, optimizer_component
    from optbench.compose import Composer
    from optbench.parity import PARTS, parity
    from optbench.sweeper import hydra_version, split_allowed

    given, allowed = split_allowed(overrides)
    for line in given:
        if re.split(r"[.=@]", line.lstrip("+~"))[0] not in PARTS:
            raise UsageError(
                f"{line}: parity compares the updates of optimizers over gradients of its own, and uses none of this.\n"
                "It takes optimizer..., schedule... and allow=; leave this out."
            )
    with _hydra_errors(), initialize_config_module("optbench.conf", **hydra_version()):
        composer = Composer(GlobalHydra.instance().config_loader(), [])
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


def _report(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="optbench report",
        description="From the store alone: print the tables, and write a page, tables and pictures.",
        epilog="optbench report results optimizer=lion,adamw task=digits_mlp optimizer.lr=0.001",
    )
    parser.add_argument(
        "folder", nargs="*", help="results folders, or sweeps in one (default: results); key=value,value filters trials"
    )
    parser.add_argument("--all", action="store_true", help="every stored trial, not those of the last command alone")
    parser.add_argument(
        "--out", type=Path, metavar="FOLDER", help="where to write (default: report in the first folder)"
    )
    parser.add_argument("--svg", type=Path, metavar="FILE", help="also write a picture of the tables")
    parsed = parser.parse_args(arguments)

    from optbench.reporting import make_report

    make_report(parsed.folder, everything=parsed.all, out=parsed.out, svg=parsed.svg)
    return 0


def _status(arguments: list[str]) -> int:
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


def _list(arguments: list[str]) -> int:
    from optbench.catalogue import GROUPS, entries
    from optbench.console import show_choices, show_optimizers
    from optbench.pages import optimizers_page

    parser = argparse.ArgumentParser(prog="optbench list", description="What can be chosen, a line each.")
    parser.add_argument("group", nargs="?", help=f"one of: {', '.join(GROUPS)} (default: all)")
    parser.add_argument("--markdown", action="store_true", help="of optimizers: the page that docs/optimizers.md holds")
    parsed = parser.parse_args(arguments)
    singular = {f"{group}s": group for group in GROUPS}  # `optbench list optimizers` reads well
    asked = singular.get(parsed.group, parsed.group)
    if asked is not None and asked not in GROUPS:
        raise unknown("group", asked, GROUPS)

    if parsed.markdown:
        if asked != "optimizer":
            raise UsageError("--markdown is of optimizers: optbench list optimizers --markdown")
        print(optimizers_page(), end="")
    elif asked == "optimizer":
        found = entries(asked)
        show_optimizers([entry for entry in found if "/" not in entry.name])
        show_choices(asked, [entry for entry in found if "/" in entry.name])
    else:
        for group in GROUPS if asked is None else (asked,):
            show_choices(group, entries(group))
    return 0
