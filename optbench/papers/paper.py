"""What a paper's file says: its source, its claim, the sweep, and the figures that it published."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Need = Literal["cuda"]
Position = Literal["last", "first", "min", "max", "mean"]
ReductionKind = Literal["best", "best_at", "power", "ridge", "falls", "rises"]
Origin = Literal["published", "theory", "ours"]
Comparison = Literal["ratio", "difference"]
FigureKind = Literal["lines", "curves", "heat_map"]


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where the figures were published.

    Attributes:
        authors: as they are cited.
        title: of the paper, the post or the repository.
        year: of it.
        url: where it is.
        where: the table, figure or file in it.
    """

    authors: str
    title: str
    year: int
    url: str
    where: str


@dataclass(frozen=True, kw_only=True)
class PaperSweep:
    """Trials of a reproduction.

    Attributes:
        overrides: as they are typed after `optbench sweep`.
        quick: overrides that take the place of those with the same keys in a quick run; None leaves the sweep out.
        needs: what a machine must have for it.
    """

    overrides: Sequence[str]
    quick: Sequence[str] | None
    needs: Need | None


@dataclass(frozen=True, kw_only=True)
class Reduction:
    """One number from trials that differ in a key.

    Attributes:
        kind: `best`, the best value of the figure; `best_at`, the value of `along` that has it; `power`, the exponent
            with which the figure goes along; `ridge`, that with which the best `across` goes, over the values of
            `along` that come `within` a part of the best; `falls` and `rises`, the share of neighbours that do so.
        along: a key of the config.
        across: another one, of `ridge`.
        within: of `ridge`.
        best: whether less of the figure is better, or more.
        of: `seeds`, of the trials of each seed; or `mean`, of the means over seeds, as where seeds draw the data, whose
            spread is by Tukey's (1958) jackknife.
    """

    kind: ReductionKind
    along: str
    across: str | None
    within: float
    best: Literal["min", "max"]
    of: Literal["seeds", "mean"]


@dataclass(frozen=True, kw_only=True)
class Measure:
    """How a number is had from trials, one for each seed, or by computation.

    Attributes:
        where: keys of the config with the values that they have in its trials; a list allows any of its values.
        figure: a column of the curve, a figure of the summary, or one of `claims.FIGURES`.
        at: which value of a curve: the last, first, smallest, largest or mean one, or that after so many steps.
        steps: the first and the last step that count; None counts all.
        reduction: over trials that differ in a key; None where each seed has one trial.
        comparison: with `against`: the ratio to it, or the difference.
        against: the same of other trials.
        compute: the name of a computation, in place of trials.
        arguments: of it.
    """

    where: Mapping[str, Any]
    figure: str | None
    at: Position | int
    steps: tuple[int, int] | None
    reduction: Reduction | None
    comparison: Comparison | None
    against: "Measure | None"
    compute: str | None
    arguments: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Band:
    """What counts as the same: from `low` to `high`, both included."""

    low: float
    high: float

    def __contains__(self, value: float) -> bool:
        """Whether the value counts as the same."""
        return self.low <= value <= self.high

    @property
    def is_one_sided(self) -> bool:
        """Whether it is a bound, and no figure with a tolerance."""
        return math.isinf(self.low) or math.isinf(self.high)

    @property
    def text(self) -> str:
        """In a few characters."""
        if math.isinf(self.high):
            return f"at least {self.low:.6g}"
        if math.isinf(self.low):
            return f"at most {self.high:.6g}"
        return f"{self.low:.6g} to {self.high:.6g}"


@dataclass(frozen=True, kw_only=True)
class Check:
    """A number with what it is held against.

    Attributes:
        measure: how it is had.
        published: the figure, or the word, of the source; None where it has none.
        spread: standard deviation over the source's seeds; None where it gives none.
        band: where the number has to lie; None where there is nothing to hold it against.
        diverges: that the trials diverge is what is published.
        is_exact: no seed changes it, so that one trial says it all.
    """

    measure: Measure
    published: float | str | None
    spread: float | None
    band: Band | None
    diverges: bool
    is_exact: bool

    @property
    def is_judged(self) -> bool:
        """Whether there is something to hold it against."""
        return self.band is not None or self.diverges


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One cell of a table."""

    row: str
    column: str
    check: Check


@dataclass(frozen=True, kw_only=True)
class Table:
    """A published table.

    Attributes:
        name: letters, digits and _.
        title: above it.
        because: why the tolerances are what they are.
        origin: of its figures: published by the source, following from theory, or measured by us before.
        where: in which source, if not the paper's own; else empty.
        rows: names, in their order.
        columns: names, in their order.
        cells: those that are published or measured.
        digits: of the figures, as they are shown.
    """

    name: str
    title: str
    because: str
    origin: Origin
    where: str
    rows: Sequence[str]
    columns: Sequence[str]
    cells: Sequence[Cell]
    digits: int


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A statement that goes with the sweep.

    Attributes:
        id: in the list of claims.
        text: what is said.
        source: who says so.
        check: what would be measured if it were so.
    """

    id: str
    text: str
    source: str
    check: Check


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A picture, drawn as the source draws it.

    Attributes:
        name: of its files: letters, digits and _.
        title: above it.
        kind: `lines`, the figure of a table over the numbers that its columns are named by; `curves`, over the steps;
            `heat_map`, over two keys.
        table: whose cells are drawn, for `lines` and `curves`.
        x: label to the right; for `heat_map` a key of the config.
        y: label upwards; for `heat_map` another key, and for `curves` the column of the curve.
        z: the figure of a `heat_map`, its last value.
        by: the key that has a panel for each value in a `heat_map`.
        where: trials of a `heat_map`.
        best: whether less is better, or more.
        slope: of a line through the best of each column of a `heat_map`, in logarithms, for each value of `by`.
        points: published points of `curves`, for each row: (step, value).
        log_x: whether x is logarithmic.
        log_y: whether y is.
    """

    name: str
    title: str
    kind: FigureKind
    table: str | None
    x: str
    y: str
    z: str | None
    by: str | None
    where: Mapping[str, Any]
    best: Literal["min", "max"]
    slope: Mapping[str, float]
    points: Mapping[str, Sequence[tuple[float, float]]]
    log_x: bool
    log_y: bool


@dataclass(frozen=True, kw_only=True)
class Paper:
    """A reproduction.

    Attributes:
        name: of its file.
        title: a line.
        statement: the claim, in a sentence.
        source: where it was published.
        gaps: what the source leaves open, and how it is filled here.
        minutes: what it takes on `machine`, as measured; None where it was not.
        quick_minutes: of a quick run; None where there is no quicker subset.
        machine: two cores, or one GPU.
        sweeps: its trials.
        tables: what was published.
        claims: what is said besides.
        figures: what is drawn.
        digest: SHA-256 of its file.
    """

    name: str
    title: str
    statement: str
    source: Source
    gaps: Sequence[str]
    minutes: float | None
    quick_minutes: float | None
    machine: str
    sweeps: Sequence[PaperSweep]
    tables: Sequence[Table]
    claims: Sequence[Claim]
    figures: Sequence[Figure]
    digest: str
