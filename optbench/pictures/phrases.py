"""What captions have in common: over how many seeds, what an interval is, and what failed."""

from collections import Counter
from collections.abc import Iterable, Sequence

from optbench.pictures.drawing import shown_name
from optbench.pictures.scales import plain
from optbench.tables import Row

INTERVAL = "the 95 % bootstrap interval over seeds, or their range where there are two or three"
MOST_LISTED = 8
CROSS = "\N{MULTIPLICATION SIGN}"


def seeds(rows: Iterable[Row]) -> str:
    """Over how many seeds each of the rows is: `5 seeds`, or `3 to 5 seeds`."""
    counts = sorted({row.num_trials for row in rows})
    if not counts:
        return "no seeds"
    if len(counts) > 1:
        return f"{counts[0]} to {counts[-1]} seeds"
    return f"{counts[0]} seed{'s' if counts[0] != 1 else ''}"


def failed(rows: Iterable[Row]) -> str:
    """How many trials ended early and how: `2 of 45 trials ended early (2 diverged)`; empty where none did."""
    known = list(rows)
    counts = Counter[str]()
    for row in known:
        counts.update(row.failures)
    if not counts.total():
        return ""
    total = sum(row.num_trials for row in known)
    how = ", ".join(f"{count} {status.replace('_', ' ')}" for status, count in counts.items())
    return f"{counts.total()} of {total} trial{'s' if total != 1 else ''} ended early ({how})"


def cut(metric: str, edge: float, *, sign: float) -> str:
    """What lies beyond the worse edge of a picture."""
    return f"Values of {shown_name(metric)} {'above' if sign > 0.0 else 'below'} {plain(edge, digits=3)} are not shown"


def listed(names: Sequence[str], most: int = MOST_LISTED) -> str:
    """Names in a sentence, the first ones where they are many."""
    shown = [shown_name(name, 60) for name in names[:most]]
    if len(names) > most:
        return f"{', '.join(shown)} and {len(names) - most} more"
    return " and ".join(filter(None, [", ".join(shown[:-1]), shown[-1]])) if shown else ""


def sentences(*parts: str) -> str:
    """Parts that are not empty, each as a sentence."""
    return " ".join(part if part.endswith(".") else f"{part}." for part in parts if part)
