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
        changes: overrides that make it another question than the paper's.
        cells: of all tables.
        claims: in their order.
        said: claims of experiments.
        verdict: of the paper.
        reasons: why something was not run, a sentence each.
        records: of its trials.
    """

    paper: Paper
    is_quick: bool
    changes: Sequence[str]
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
    changes: Sequence[str] = (),
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
        changes: overrides that make it another question than the paper's.
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
        if is_quick and check.measure.reduction is not None:
            return None  # the best of a part may not be the best
        judgement = check_outcome(check, records, compute=once, missing=missing)
        return None if is_quick and judgement.note == NO_TRIALS and not missing else judgement

    cells = [
        CellOutcome(table=table, cell=cell, found=found(cell.check)) for table in paper.tables for cell in table.cells
    ]
    claims = [ClaimOutcome(claim=claim, found=found(claim.check)) for claim in paper.claims]
    return Outcome(
        paper=paper,
        is_quick=is_quick,
        changes=changes,
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
    sides = [side for side in (check.measure, check.measure.against) if side is not None]
    if num_missing := len({id(one) for side in sides for one in matching(missing, side.where)}):
        return _nothing(check, note=f"{num_missing} of its trials were not run")
    found = measured(check.measure, records)
    values = list(found.values.values())
    if found.num_trials == 0:
        return _nothing(check, note=NO_TRIALS)
    if found.num_failed_otherwise:
        return _nothing(check, note=_failed(found.statuses, of=found.num_trials))
    if check.diverges:
        return _of_divergence(found)
    needs_all = check.measure.reduction is None or check.measure.reduction.kind in ("falls", "rises", "power")
    if found.num_diverged and (needs_all or not values):
        note = _failed(found.statuses, of=found.num_trials)
        verdict = Verdict.NOT_REPRODUCED if check.band is not None else None
        return Judgement(verdict=verdict, mean=None, low=None, high=None, num_values=len(values), note=note)
    if not values or found.without_value:
        return _nothing(check, note=NO_FIGURE)
    if found.pooled is not None and check.is_exact:
        return judge([found.pooled] * len(values), check.band, is_exact=True)
    return judge(values, check.band, is_exact=check.is_exact)


def _of_divergence(found: Measured) -> Judgement:
    """All have to diverge."""
    verdict = Verdict.REPRODUCED if found.num_diverged == found.num_trials else Verdict.NOT_REPRODUCED
    note = f"{found.num_diverged} of {found.num_trials} diverged"
    return Judgement(verdict=verdict, mean=None, low=None, high=None, num_values=found.num_trials, note=note)


def _nothing(check: Check, *, note: str) -> Judgement:
    verdict = Verdict.NOT_RUN
    return Judgement(
        verdict=verdict if check.is_judged else None, mean=None, low=None, high=None, num_values=0, note=note
    )


def _failed(statuses: Mapping[str, int], *, of: int) -> str:
    return ", ".join(f"{count} of {of} {status.replace('_', ' ')}" for status, count in statuses.items())
