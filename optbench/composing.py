"""Hydra for the verbs that are no Hydra application: one that composes, and errors in our words."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import hydra
from hydra import initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException, MissingConfigException
from omegaconf.errors import OmegaConfBaseException

from optbench.compose import Composer
from optbench.errors import UsageError, unknown

CONFIGS = "optbench.conf"


@contextmanager
def composing(folder: Path | None = None) -> Iterator[Composer]:
    """What composes configs, for as long as the context lasts.

    Args:
        folder: of more configs.
    """
    from optbench.sweeper import register

    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    register()
    searchpath = [] if folder is None else [f"hydra.searchpath=[file://{folder.resolve()}]"]
    with hydra_errors(), initialize_config_module(CONFIGS, **hydra_version()):
        yield Composer(GlobalHydra.instance().config_loader(), searchpath)


@contextmanager
def hydra_errors() -> Iterator[None]:
    """Hydra's errors in our words."""
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


def hydra_version() -> dict[str, str]:
    """The argument by which Hydra is told what to be like: 1.4 warns where it is given, 1.3 where it is not."""
    return {"version_base": "1.3"} if hydra.__version__.startswith("1.3") else {}


def with_rerun(arguments: list[str]) -> list[str]:
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
