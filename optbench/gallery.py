"""All pictures of an analysis, by task; drawn one after the other."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from optbench.analysis import Analysis
from optbench.contest import Contest
from optbench.pictures import best_of_k, heat_map, learning, lr_free, memory, profile, ranks, sensitivity, trade_off
from optbench.pictures.drawing import Palette
from optbench.pictures.picture import Picture


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """What may be drawn.

    Attributes:
        title: what it is, for those who wait.
        draw: gives the pictures; none where there is nothing to show.
    """

    title: str
    draw: Callable[[], list[Picture]]


def drawings(analysis: Analysis) -> list[Drawing]:
    """What there is to draw; of each task what matters most comes first."""
    names = dict.fromkeys(contender.optimizer for contest in analysis.contests for contender in contest.contenders)
    palette = Palette(list(names))
    found = [one for contest in analysis.contests for one in _of(contest, analysis=analysis, palette=palette)]
    together = analysis.aggregate
    if together is not None:
        found.append(Drawing(title="ranks", draw=lambda: ranks.pictures(together, palette=palette)))
        found.append(Drawing(title="profiles", draw=lambda: profile.pictures(together, palette=palette)))
    return found


def _of(contest: Contest, *, analysis: Analysis, palette: Palette) -> Sequence[Drawing]:
    slug, curves = analysis.slugs[contest.task], analysis.curves
    kinds: dict[str, Callable[[], list[Picture]]] = {
        "curves": lambda: learning.pictures(contest, slug=slug, curves=curves, palette=palette),
        "learning rates": lambda: sensitivity.pictures(contest, slug=slug, palette=palette),
        "weight decay": lambda: heat_map.pictures(contest, slug=slug),
        "trade-offs": lambda: trade_off.pictures(contest, slug=slug, palette=palette),
        "best of k": lambda: best_of_k.pictures(contest, slug=slug, palette=palette),
        "estimated rates": lambda: lr_free.pictures(contest, slug=slug, curves=curves, palette=palette),
        "memory": lambda: memory.pictures(contest, slug=slug),
    }
    return [Drawing(title=f"{kind} of {contest.task}", draw=draw) for kind, draw in kinds.items()]
