"""The command line: `run`, `sweep`, `plan`, `cost`, `fit`, and the verbs of `optbench.verbs`.

The first five take overrides in Hydra's grammar and Hydra's own options (`--cfg job`, `--config-dir`, `--help`, tab
completion); without a verb the command is a plain Hydra application, so `optbench -m key=value,value` is a sweep too.
"""

import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
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
        "status": _verb("status"),
        "parity": _verb("parity"),
        "reproduce": _verb("reproduce"),
        "claims": _verb("claims"),
        "regress": _verb("regress"),
        "baseline": _verb("baseline"),
        "report": _verb("report"),
        "list": _verb("list"),
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


def _verb(name: str) -> Callable[[list[str]], int]:
    """One that is no Hydra application, imported when it is called."""

    def call(arguments: list[str]) -> int:
        from optbench import verbs

        return verbs.VERBS[name](arguments)

    return call


def _hydra(arguments: list[str], *, verb: str | None = None, multirun: bool = False) -> int:
    """The verbs that take configs, and what any Hydra application answers: --help, --cfg, --info, completion."""
    from hydra._internal.utils import get_args_parser

    from optbench.composing import hydra_errors, with_rerun
    from optbench.sweeper import ALLOW, OptbenchSweeper, register

    arguments = with_rerun(arguments)
    typed = [*([verb] if verb else []), *arguments]
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # Hydra raises its errors, and we word them
    register()
    parsed = get_args_parser().parse_args(arguments)
    allowing = [line for line in parsed.overrides if line.startswith(ALLOW)]
    arguments = [line for line in arguments if line not in allowing]
    with hydra_errors():
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
    from optbench.composing import hydra_version

    previous = sys.argv
    sys.argv = ["optbench", *arguments]
    try:
        hydra.main(config_path="pkg://optbench.conf", config_name=CONFIG_NAME, **hydra_version())(_not_ours)()
    finally:
        sys.argv = previous


def _not_ours(_: object) -> None:
    raise UsageError("hydra/sweeper: trials are run by optbench's own sweeper alone; leave this override out.")


def _help(overrides: Sequence[str]) -> str:
    """What Hydra's --help says, in a fraction of the time that it takes to list all its groups."""
    from hydra import compose, initialize_config_module
    from omegaconf import OmegaConf, open_dict

    from optbench.catalogue import GROUPS, names
    from optbench.compose import CONFIG_NAME
    from optbench.composing import hydra_version

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
