"""Which packages a config may call: those of the catalogue, and those that the command line allows.

A config is code, since its `_target_` is imported and called. A file that comes from elsewhere must not decide what
runs here, so a file cannot widen this list; whoever types the command can, by `allow=package` or by typing a class.
"""

import re
from collections.abc import Iterable, Mapping, Sequence

from optbench.component import Component
from optbench.components import locate
from optbench.errors import UsageError
from optbench.trial import Trial

OPTIMIZERS = (
    "optbench.optim",
    "torch.optim",
    "bitsandbytes.optim",
    "came_pytorch",
    "dadaptation",
    "lion_pytorch",
    "momo",
    "prodigyopt",
    "pytorch_optimizer",
    "schedulefree",
    "torchao.optim",
    "transformers.optimization",
)
ALLOWED: Mapping[str, Sequence[str]] = {
    "task": ("optbench.tasks",),
    "data": ("optbench.captions", "optbench.data", "optbench.images", "optbench.text"),
    "model": ("optbench.lora", "optbench.tasks"),
    "optimizer": OPTIMIZERS,
    "optimizer.companion": OPTIMIZERS,
    "param_groups": ("optbench.optim.param_groups",),
    "schedule": ("optbench.schedule",),
    "logger": ("optbench.loggers",),
    "executor": ("optbench.executors",),
}
# Arguments of executors that Slurm's shell and programs take as they are.
RUN_BY_A_SHELL = ("setup", "sbatch")


def components_of(trial: Trial) -> list[tuple[str, Component]]:
    """All that a trial calls, each with its group."""
    found = {
        "task": trial.task,
        "data": trial.data,
        "model": trial.model,
        "optimizer": trial.optimizer,
        "optimizer.companion": trial.optimizer.companion,
        "param_groups": trial.param_groups,
        "schedule": trial.schedule,
    }
    return [(group, part) for group, part in found.items() if part is not None]


def check_names(parts: Iterable[tuple[str, Component]], *, allowed: Sequence[str]) -> None:
    """Refuse targets that are not spelt as public parts of an allowed package; nothing is imported.

    Args:
        parts: what would be called, each with its group.
        allowed: packages, or whole targets, that the command line allows.

    Raises:
        UsageError: names the target, and what to add to the command if it is trusted.
    """
    for group, part in parts:
        # `package.module:name` is a spelling, too, that is looked up.
        is_private = any(name.startswith("_") for name in re.split(r"[.:]", part.target))
        if part.target not in allowed and (is_private or not _inside(part.target, (*ALLOWED[group], *allowed))):
            raise _refusal(f"{group} {part.name!r}: _target_={part.target}", part.target, group=group)


def check_targets(parts: Iterable[tuple[str, Component]], *, allowed: Sequence[str]) -> None:
    """Refuse targets that an allowed package only passes on, such as `optbench.data.np.load`.

    Args:
        parts: what would be called, each with its group.
        allowed: packages, or whole targets, that the command line allows.

    Raises:
        UsageError: names where the target really comes from.
    """
    for group, part in parts:
        module = str(getattr(locate(part, group=group), "__module__", "") or "")
        if part.target not in allowed and not _inside(module, (*ALLOWED[group], *allowed)):
            what = f"{group} {part.name!r}: _target_={part.target} is defined in {module or 'no module'}, which"
            raise _refusal(what, module, group=group)


def check_shell(executor: Component, *, overrides: Sequence[str], allowed: Sequence[str]) -> None:
    """Refuse lines of shell, and options of programs, that a file brings with its executor: they run here, too.

    Args:
        executor: as it is composed.
        overrides: as they were typed; who types such a key allows what it holds.
        allowed: packages, or keys such as `executor.setup`, that the command line allows.

    Raises:
        UsageError: names the key, and what to add to the command if the file is trusted.
    """
    typed = {override.lstrip("+").partition("=")[0] for override in overrides}
    for name in RUN_BY_A_SHELL:
        given = executor.arguments.get(name) or ()
        keys = {f"executor.{name}.{key}" for key in given} if isinstance(given, Mapping) else {f"executor.{name}"}
        is_typed = f"executor.{name}" in typed or keys <= typed
        if given and not is_typed and f"executor.{name}" not in allowed:
            raise UsageError(
                f"executor.{name} comes from a file, and is run by a shell.\n"
                f"Configs are code. If you trust this one, add allow=executor.{name} to the command, or type the key."
            )


def _inside(name: str, packages: Iterable[str]) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def _refusal(what: str, name: str, *, group: str) -> UsageError:
    return UsageError(
        f"{what} is not among the packages that a config may call.\n"
        f"Configs are code. If you trust this one, add allow={name.partition('.')[0]} to the command. "
        f"Allowed for {group}: {', '.join(ALLOWED[group])}."
    )
