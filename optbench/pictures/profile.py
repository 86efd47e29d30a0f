"""Performance profile: on what share of problems an optimizer is within a factor of the fastest.

Dolan and More, "Benchmarking optimization software with performance profiles", 2002,
https://doi.org/10.1007/s101070100263.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from optbench.aggregate import Aggregate, Profile
from optbench.pictures.drawing import Key, Palette, element, frame, new_page, render, shown_name
from optbench.pictures.phrases import listed, sentences
from optbench.pictures.picture import Picture, Series
from optbench.pictures.scales import Extent

LARGEST_FACTOR = 4.0
_LEAST_FACTOR = 1.25


def pictures(aggregate: Aggregate, *, palette: Palette) -> list[Picture]:
    """The profile; none where no task tells, or nobody reaches a target.

    Args:
        aggregate: over tasks.
        palette: of the report.
    """
    profile = aggregate.profile
    ratios = {} if profile is None else _ratios(profile)
    finite = [ratio for own in ratios.values() for ratio in own if math.isfinite(ratio)]
    if profile is None or not finite:
        return []
    largest = min(LARGEST_FACTOR, max(_LEAST_FACTOR, max(finite)))
    return [
        Picture(
            **_draw(ratios, largest=largest, palette=palette),
            name="profile",
            title="How often an optimizer is about as fast as the fastest",
            caption=_caption(aggregate, profile, ratios, largest=largest),
            task=None,
            numbers=_numbers(profile, ratios),
        )
    ]


def _ratios(profile: Profile) -> dict[str, list[float]]:
    """Steps over those of the fastest, problem by problem; infinite where the target was not reached."""
    found: dict[str, list[float]] = {name: [] for name in profile.steps}
    for place in range(len(profile.problems)):
        fastest = min(steps[place] for steps in profile.steps.values())
        for name, steps in profile.steps.items():
            if math.isinf(steps[place]):
                found[name].append(math.inf)
            elif fastest == 0.0:
                found[name].append(1.0 if steps[place] == 0.0 else math.inf)
            else:
                found[name].append(steps[place] / fastest)
    return found


def _shares(ratios: Sequence[float], *, largest: float) -> list[tuple[float, float]]:
    """The corners of the steps: factors up to the largest at which the share grows, with the share from there on."""
    factors = sorted({1.0, *(ratio for ratio in ratios if ratio <= largest)})
    corners = [(factor, sum(ratio <= factor for ratio in ratios) / len(ratios)) for factor in factors]
    return [*corners, (largest, corners[-1][1])] if factors[-1] < largest else corners


def _draw(ratios: Mapping[str, Sequence[float]], *, largest: float, palette: Palette) -> dict[str, Any]:
    styles = [palette.style(name) for name in ratios]
    keys = [Key(label=name, style=style) for name, style in zip(ratios, styles, strict=True)]
    x = Extent(low=1.0, high=largest, scale="log").widened(below=0.015, above=0.015)
    series = []
    with new_page("profile", height=3.0, keys=keys) as page:
        axes = page.axes[0][0]
        y = Extent(low=-0.03, high=1.03)
        panel = frame(page, axes, x=("steps, relative to the fastest", x), y=("share of problems", y), most=7)
        for place, ((name, own), style) in enumerate(zip(ratios.items(), styles, strict=True)):
            points = _shares(own, largest=largest)
            gid = element(place, 0)
            axes.plot(
                *zip(*points, strict=True),
                drawstyle="steps-post",
                color=style.colour,
                linestyle=style.dashes,
                zorder=3.0 - place / 100.0,
                gid=gid,
            )
            series.append(Series(label=name, colour=style.colour, elements=[gid], points=[points]))
        svg, png = render(page)
    return {"svg": svg, "png": png, "panels": [panel], "series": series}


def _caption(aggregate: Aggregate, profile: Profile, ratios: Mapping[str, Sequence[float]], *, largest: float) -> str:
    every = [ratio for own in ratios.values() for ratio in own]
    num_missed = sum(math.isinf(ratio) for ratio in every)
    num_beyond = sum(largest < ratio < math.inf for ratio in every)
    targets = [f"{shown_name(target, 60)} on {shown_name(task, 60)}" for task, target in profile.targets.items()]
    return sentences(
        f"The share of {len(profile.problems)} problems, each a task with a seed, on which an optimizer takes at most "
        "so many times the steps of the fastest until it reaches the target",
        f"Targets: {listed(targets)}; where trials had none, what {aggregate.reference} reaches from every seed, so "
        "that it never misses",
        f"{num_missed} of {len(every)} runs never reached it and count as infinitely slow"
        if num_missed
        else "All runs reached it",
        f"{num_beyond} took more than {largest:g} times as many" if num_beyond else "",
        f"Not compared: {listed(list(aggregate.left_out))}" if aggregate.left_out else "",
    )


def _numbers(profile: Profile, ratios: Mapping[str, Sequence[float]]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {"optimizer": name, "problem": problem, "steps": steps, "ratio": ratio}
            for name, own in ratios.items()
            for problem, steps, ratio in zip(profile.problems, profile.steps[name], own, strict=True)
        ]
    )
