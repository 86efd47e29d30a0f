"""What a reproduction came to: each cell and each claim with what was measured, and a verdict."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from optbench.curve_claims import Record, matching
from optbench.errors import UsageError
from optbench.papers.measures import Measured, measured
from optbench.papers.paper import Cell, Check, Claim, Measure, Paper, Table
from optbench.papers.verdicts import Judgement, Verdict, judge, overall

NO_TRIALS, NO_FIGURE = "no trials", "no such figure"
Compute = Callable[[Measure], float]


@dataclass(frozen=True, kw_only=True)
class CellOutcome:
    """A cell, beside what was measured.

    Attributes:
        table: that it is in.
        cell: what was published.
        found: what was measured; None in a quick run that leaves it out.
    """

    table: Table
    cell: Cell
    found: Judgement | None


@dataclass(frozen=True, kw_only=True)
class ClaimOutcome:
    """A claim, beside what was measured."""

    claim: Claim
    found: Judgement | None


@dataclass(frozen=True, kw_only=True)
class SaidOutcome:
    """A claim of an experiment that the paper's trials come from, which has a verdict of its own.

    Attributes:
        id: in the list of claims.
        text: what is said.
        source: who says so.
        measured: in words.
        verdict: `holds`, `does not hold`, or another word where it could not be told.
    """

    id: str
    text: str
    source: str
    measured: str
    verdict: str


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a reproduction came to.

    Attributes:
        paper: which.
        is_quick: whether it was the quick subset.
        cells: of all tables.
        claims: in their order.
        said: claims of experiments.
        verdict: of the paper.
        reasons: why something was not run, a sentence each.
        records: of its trials.
    """

    paper: Paper
    is_quick: bool
    cells: Sequence[CellOutcome]
    claims: Sequence[ClaimOutcome]
    said: Sequence[SaidOutcome]
    verdict: Verdict
    reasons: Sequence[str]
    records: Sequence[Record]

    @property
    def judged(self) -> list[tuple[CellOutcome, Verdict]]:
        """The cells that have a verdict."""
        return [(one, one.found.verdict) for one in self.cells if one.found and one.found.verdict]

    def count(self, verdict: Verdict) -> int:
        """How many cells have this verdict."""
        return sum(found is verdict for _, found in self.judged)

    @property
    def num_left_out(self) -> int:
        """Cells that a quick run leaves out."""
        return sum(one.found is None for one in self.cells)


def outcome(
    paper: Paper,
    records: Sequence[Record],
    *,
    compute: Compute,
    is_quick: bool = False,
    said: Sequence[SaidOutcome] = (),
    reasons: Sequence[str] = (),
    missing: Sequence[Record] = (),
) -> Outcome:
    """Hold trials and computations against what was published.

    Args:
        paper: which.
        records: of all its trials that have a result.
        compute: does a computation.
        is_quick: leaves out the cells that a quick run has no trials for.
        said: claims of experiments, with their verdicts.
        reasons: why trials are missing.
        missing: the configs of those, as records that have nothing else.
    """
    remembered: dict[str, float] = {}

    def once(measure: Measure) -> float:
        key = f"{measure.compute} {measure.arguments}"
        if key not in remembered:
            remembered[key] = compute(measure)
        return remembered[key]

    def found(check: Check) -> Judgement | None:
        judgement = check_outcome(check, records, compute=once, missing=missing)
        return None if is_quick and judgement.note in (NO_TRIALS, NO_FIGURE) and not missing else judgement

    cells = [
        CellOutcome(table=table, cell=cell, found=found(cell.check)) for table in paper.tables for cell in table.cells
    ]
    claims = [ClaimOutcome(claim=claim, found=found(claim.check)) for claim in paper.claims]
    return Outcome(
        paper=paper,
        is_quick=is_quick,
        cells=cells,
        claims=claims,
        said=said,
        verdict=overall([one.found.verdict for one in cells if one.found and one.found.verdict]),
        reasons=reasons,
        records=records,
    )


def check_outcome(
    check: Check, records: Sequence[Record], *, compute: Compute, missing: Sequence[Record] = ()
) -> Judgement:
    """What was measured, and what it says; a check that nothing is held against has no verdict."""
    if check.measure.compute is not None:
        try:
            return judge([compute(check.measure)], check.band, is_exact=True)
        except UsageError as error:  # a package that is not installed, for one
            return _nothing(check, note=" ".join(str(error).split()))
    found = measured(check.measure, records)
    values = list(found.values.values())
    if check.measure.reduction is not None or check.measure.against is not None:
        # The best of a part may not be the best.
        if any(matching(missing, measure.where) for measure in (check.measure, check.measure.against) if measure):
            return _nothing(check, note="some of its trials were not run")
        if found.num_failed_otherwise:
            return _nothing(check, note=_failed(found.statuses))
    if found.pooled is not None and check.is_exact and values:
        return judge([found.pooled] * len(values), check.band, is_exact=True)
    if found.num_trials == 0:
        return _nothing(check, note=NO_TRIALS)
    if check.diverges:
        return _of_divergence(found)
    if check.measure.reduction is None and found.num_diverged:
        verdict = Verdict.NOT_REPRODUCED if check.band is not None else None
        note = f"{found.num_diverged} of {found.num_trials} diverged"
        return Judgement(verdict=verdict, mean=None, low=None, high=None, num_values=len(values), note=note)
    if not values:
        return _nothing(check, note=_failed(found.statuses) or NO_FIGURE)
    judgement = judge(values, check.band, is_exact=check.is_exact)
    num_missing = found.num_trials - len(values) if check.measure.reduction is None and not check.measure.against else 0
    if num_missing <= 0:
        return judgement
    note = "; ".join(filter(None, [judgement.note, _failed(found.statuses)]))
    return Judgement(**{**vars(judgement), "note": note})


def _of_divergence(found: Measured) -> Judgement:
    """All have to diverge; what crashed or ran out of time says nothing."""
    told = found.num_diverged + len(found.values)
    note = f"{found.num_diverged} of {found.num_trials} diverged"
    if not told:
        verdict = Verdict.NOT_RUN
    else:
        verdict = Verdict.REPRODUCED if found.num_diverged == found.num_trials else Verdict.NOT_REPRODUCED
    return Judgement(verdict=verdict, mean=None, low=None, high=None, num_values=told, note=note)


def _nothing(check: Check, *, note: str) -> Judgement:
    verdict = Verdict.NOT_RUN
    return Judgement(
        verdict=verdict if check.is_judged else None, mean=None, low=None, high=None, num_values=0, note=note
    )


def _failed(statuses: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {status}" for status, count in statuses.items())
