"""What is looked at before anything trains, so that a mistake in the last trial shows before the first one starts."""

import logging
from collections.abc import Sequence

from optbench import advice, allowlist, components
from optbench.execution import Context
from optbench.loggers import Logger
from optbench.run import check
from optbench.trial import Trial

# What the checks look at. Equal parts of the trials of a sweep are one object, of which one is looked at.
CHECKED = ("task", "data", "model", "optimizer", "param_groups", "lr_scaling", "schedule", "hardware")

_notes = logging.getLogger("optbench")


def check_all(trials: Sequence[Trial], context: Context, *, is_here: bool = True) -> list[str]:
    """Check every trial and the logger.

    Args:
        trials: those that are to run.
        context: of the sweep.
        is_here: whether they run on this machine, so that their device has to be here.

    Returns:
        Sentences to warn of.

    Raises:
        UsageError: nothing has been trained.
    """
    parts = {(group, part.target): (group, part) for trial in trials for group, part in allowlist.components_of(trial)}
    parts["logger", context.logger.target] = ("logger", context.logger)
    allowlist.check_names(parts.values(), allowed=context.allowed)
    allowlist.check_targets(parts.values(), allowed=context.allowed)
    distinct = list({tuple(id(getattr(trial, name)) for name in CHECKED): trial for trial in trials}.values())
    for trial in distinct:
        check(trial, is_here=is_here)
    if remark := getattr(build_logger(context), "remark", ""):
        _notes.info(remark)
    return list(dict.fromkeys(sentence for trial in distinct for sentence in advice.against(trial)))


def build_logger(context: Context) -> Logger:
    """The logger of a sweep.

    Raises:
        UsageError: it does not take what it is given.
    """
    built: Logger = components.build(context.logger, group="logger")
    return built
