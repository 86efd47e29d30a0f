"""Which packages a config may call: those of the catalogue, and those that the command line allows.

A config is code, since its `_target_` is imported and called. A file that comes from elsewhere must not decide what
runs here, so a file cannot widen this list; whoever types the command can, by `allow=package` or by typing a class.
"""

from collections.abc import Iterable, Sequence

from optbench.component import Component
from optbench.components import locate
from optbench.errors import UsageError
from optbench.trial import Trial

ALLOWED = (
    "optbench",
    "torch.optim",
    "bitsandbytes.optim",
    "came_pytorch",
    "dadaptation",
    "lion_pytorch",
    "prodigyopt",
    "pytorch_optimizer",
    "schedulefree",
    "torchao.optim",
    "transformers.optimization",
)


def components_of(trial: Trial) -> list[tuple[str, Component]]:
    """All that a trial calls, each with its group."""
    found = {
        "task": trial.task,
        "data": trial.data,
        "optimizer": trial.optimizer,
        "optimizer.companion": trial.optimizer.companion,
        "param_groups": trial.param_groups,
        "schedule": trial.schedule,
    }
    return [(group, part) for group, part in found.items() if part is not None]


def check_names(parts: Iterable[tuple[str, Component]], *, allowed: Sequence[str]) -> None:
    """Refuse targets that are not spelt as parts of an allowed package; nothing is imported.

    Raises:
        UsageError: names the target, and what to add to the command if it is trusted.
    """
    for group, part in parts:
        if not _inside(part.target, allowed):
            raise _refusal(f"{group} {part.name!r}: _target_={part.target}", package=part.target.partition(".")[0])


def check_targets(parts: Iterable[tuple[str, Component]], *, allowed: Sequence[str]) -> None:
    """Refuse targets that an allowed package only passes on, such as `optbench.run.json.loads`.

    Raises:
        UsageError: names where the target really comes from.
    """
    for group, part in parts:
        module = str(getattr(locate(part, group=group), "__module__", "") or "")
        if not _inside(module, allowed):
            what = f"{group} {part.name!r}: _target_={part.target} is defined in {module or 'no module'}, which"
            raise _refusal(what, package=module.partition(".")[0])


def _inside(name: str, allowed: Sequence[str]) -> bool:
    return any(name == prefix or name.startswith(f"{prefix}.") for prefix in (*ALLOWED, *allowed))


def _refusal(what: str, *, package: str) -> UsageError:
    return UsageError(
        f"{what} is not among the packages that a config may call.\n"
        f"Configs are code. If you trust this one, add allow={package} to the command. Allowed: {', '.join(ALLOWED)}."
    )
