"""The words of a command that say where its tables are tracked: `logger=wandb logger.mode=offline`."""

import re
from collections.abc import Sequence

from optbench import tracking
from optbench.component import component
from optbench.errors import UsageError
from optbench.parsing import parse_mapping
from optbench.secrets import check_config
from optbench.tracking import Tracked

_WORD = re.compile(r"[+~]*(logger[.@=]|allow=)")


def split(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """The words of a command without those that say where it is tracked, and these: `logger...=` and `allow=`."""
    return [word for word in words if not _WORD.match(word)], [word for word in words if _WORD.match(word)]


def tracked(overrides: Sequence[str]) -> Tracked:
    """Where these overrides, in Hydra's grammar, say that something is tracked.

    Raises:
        UsageError: there is no such logger, or it does not take what it is given.
    """
    from optbench.composing import composing  # Hydra takes its time
    from optbench.sweeper import split_allowed

    given, allowed = split_allowed(overrides)
    if several := [line for line in given if re.match(r"logger=.*,", line)]:
        raise UsageError(f"{several[0]}: tables are tracked in one place at a time. Name one logger.")
    with composing() as composer:
        (config,) = composer.configs([*given, "sweep=once"], one_trial=True)
        allowed += composer.packages_named(given)
    check_config(config)
    logger = component(parse_mapping(config.get("logger"), where="logger"), group="logger")
    tracking.build(logger, allowed=allowed)  # a mistake shows before the tables are made
    return Tracked(logger=logger, allowed=allowed)
