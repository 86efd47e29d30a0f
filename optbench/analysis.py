"""What a report is made of: the contests of all trials, what they say together, and every table of it."""

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from optbench import sheets, tables
from optbench.across import across
from optbench.aggregate import Aggregate, aggregate
from optbench.contest import Contest
from optbench.contests import contests
from optbench.cost import Cost
from optbench.cost_sheets import cost_sheets
from optbench.curves import Curves
from optbench.failures import failures
from optbench.gathering import Gathered
from optbench.hyperparameters import hyperparameters
from optbench.sheet import Sheet

MAX_SLUG = 60


@dataclass(frozen=True, kw_only=True)
class Analysis:
    """What the gathered trials say.

    Attributes:
        gathered: the trials.
        contests: one for each task.
        slugs: of each contest by its task, a name for files.
        aggregate: over tasks; None where they have too little in common.
        curves: of the trials.
    """

    gathered: Gathered
    contests: Sequence[Contest]
    slugs: Mapping[str, str]
    aggregate: Aggregate | None
    curves: Curves

    def of_contest(self, contest: Contest, *, with_settings: bool = False) -> list[Sheet]:
        """The tables of one task; that of all settings where it has more than the first, or where it is asked for."""
        slug = self.slugs[contest.task]
        default = sheets.default(contest, slug=slug, overrides=self.gathered.overrides)
        found = [sheets.best(contest, slug=slug), *([default] if default else [])]
        if with_settings or len(contest.rows) > len(contest.contenders):
            found.append(sheets.settings(contest, slug=slug))
        return found

    def over_tasks(self) -> Sheet | None:
        """The table over all tasks."""
        return across(self.aggregate) if self.aggregate else None

    def hyperparameters(self) -> Sheet:
        """The table of hyperparameters."""
        return hyperparameters(self.contests)

    def costs(self) -> list[Sheet]:
        """The tables of memory and time: of all costs that are stored, or where filters are given, of these trials."""
        rows = [row for contest in self.contests for row in contest.rows]
        concerned: dict[int, Cost] = {id(row.cost): row.cost for row in rows if row.cost}
        known = list(concerned.values()) if self.gathered.is_filtered else self.gathered.costs
        return cost_sheets(known, slug=slugs())

    def failures(self) -> Sheet | None:
        """The table of failed trials."""
        return failures(self.gathered, self.contests)

    def all_sheets(self) -> list[Sheet]:
        """Every table."""
        single = [self.over_tasks(), self.hyperparameters(), *self.costs(), self.failures()]
        return [
            *(sheet for contest in self.contests for sheet in self.of_contest(contest)),
            *(sheet for sheet in single if sheet is not None),
        ]


def analyse(gathered: Gathered) -> Analysis:
    """The analysis of these trials."""
    curves = Curves(gathered.reader)
    rows = tables.rows(gathered.index, gathered.costs)
    found = contests(rows, curves=curves, overrides=gathered.overrides)
    slug = slugs()
    return Analysis(
        gathered=gathered,
        contests=found,
        slugs={contest.task: slug(contest.task) for contest in found},
        aggregate=aggregate(found, curves=curves),
        curves=curves,
    )


def slugs() -> Callable[[str], str]:
    """A function from headings to names of files: letters, digits, _ and -, no two alike even where case is lost."""
    taken: set[str] = set()

    def slug(text: str) -> str:
        name = re.sub(r"[^A-Za-z0-9-]+", "_", text).strip("_")
        if not name or len(name) > MAX_SLUG or name.lower() in taken:  # the same name whatever else is in the report
            name = f"{name[:MAX_SLUG]}_{hashlib.sha256(text.encode()).hexdigest()[:8]}"
        taken.add(name.lower())
        return name

    return slug
