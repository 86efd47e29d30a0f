"""What the authors of an optimizer advise against, in words: the sweep goes on, and says so."""

from collections.abc import Iterator

from optbench.component import Advice, Capability, Component
from optbench.trial import Trial


def against(trial: Trial) -> list[str]:
    """What in a trial its optimizer's authors advise against: one sentence, or none."""
    advice = trial.optimizer.advice
    found = [] if advice is None else list(_against(trial, advice))
    if Capability.LR_FREE in trial.optimizer.capabilities and _sets_rates(trial.param_groups):
        found.append("it estimates one rate for all groups: a group's own lr may be ignored or refused")
    if not found:
        return []
    source = "" if advice is None else f" ({'; '.join(text for text in (advice.because, advice.source) if text)})"
    return [f"{trial.optimizer.name}: {'; '.join(found)}{source}."]


def _sets_rates(param_groups: Component | None) -> bool:
    if param_groups is None:
        return False
    groups = param_groups.arguments.get("groups")
    own = [key for group in groups or [] if isinstance(group, dict) for key in group]
    return groups is None or "lr" in own or "lr_factor" in own


def _against(trial: Trial, advice: Advice) -> Iterator[str]:
    lr = trial.optimizer.arguments.get("lr")
    if advice.lr is not None and isinstance(lr, (int, float)) and not advice.lr[0] <= lr <= advice.lr[1]:
        low, high = advice.lr
        yield f"lr={lr:g}, where its authors advise {f'{low:g}' if low == high else f'{low:g} to {high:g}'}"
    name = trial.schedule.name
    if advice.schedule is not None and name not in advice.schedule:
        yield f"schedule={name}, where its authors advise {' or '.join(advice.schedule)}"
    if not trial.schedule.arguments.get("warmup"):
        return
    if advice.warmup is False:
        yield "schedule.warmup, which its authors advise against"
    elif isinstance(advice.warmup, dict):
        for key, value in advice.warmup.items():
            if trial.optimizer.arguments.get(key) != value:
                yield f"schedule.warmup without optimizer.{key}={str(value).lower()}, which its authors advise with it"
