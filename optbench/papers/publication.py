"""From what a reproduction came to, to files: the page, the tables and the pictures, all in one folder."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from optbench import __version__
from optbench.folder import Folder
from optbench.page import Page, Section, render
from optbench.papers import drawing, words
from optbench.papers.outcome import CellOutcome, Outcome
from optbench.papers.paper import Origin, Paper, Source, Table
from optbench.papers.sheets import CLAIMS, label, of_table, sheets
from optbench.papers.verdicts import WORST_FIRST, Judgement, Verdict
from optbench.pictures.picture import Picture
from optbench.sheet import Sheet
from optbench.writing import csv, latex, markdown, markdown_text

NAME = "reproduction"
MOST_NAMED = 8  # cells of one verdict, in sentences
_OTHERS = {
    Verdict.NOT_REPRODUCED: ("does not", "do not"),
    Verdict.UNDERPOWERED: ("cannot be told from these seeds", "cannot be told from these seeds"),
    Verdict.NOT_RUN: ("was not run", "were not run"),
}
_LATEX_HEAD = r"% \usepackage{booktabs}"
_LATEX_START = r"\par\bigskip\noindent\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%"


def publish(outcome: Outcome, folder: Path, *, facts: Sequence[str]) -> Path:
    """Write the page, as HTML and as Markdown, the tables, the pictures, and all tables in one file for LaTeX.

    Args:
        outcome: of the reproduction.
        folder: made where it is not there.
        facts: on what it was measured, a few words each.

    Returns:
        The page to open.

    Raises:
        OSError: the folder cannot be written to, or the disk is full.
    """
    kept = Folder(folder)
    pictures = drawing.pictures(outcome)
    for picture in pictures:
        kept.write(f"figures/{picture.name}.svg", picture.svg)
        kept.write(f"figures/{picture.name}.png", picture.png)
        kept.write(f"figures/{picture.name}.csv", csv(picture.numbers))
    tables = sheets(outcome)
    for sheet in tables:
        kept.write(f"tables/{sheet.name}.md", markdown(sheet))
        kept.write(f"tables/{sheet.name}.csv", csv(sheet.numbers))
        kept.write(f"tables/{sheet.name}.tex", latex(sheet))
    page = _page(outcome, tables, pictures, facts=facts)
    written = kept.write(f"{NAME}.html", render(page))
    kept.write(f"{NAME}.md", _text(page))
    kept.write(f"{NAME}.tex", _latex(tables))
    kept.close()
    return written


def answers(outcome: Outcome) -> list[str]:
    """What came out, a sentence each: the verdict, the cells that are not reproduced, and what is missing."""
    return [
        _verdict(outcome),
        *_exceptions(outcome.judged, has_tables=len(outcome.paper.tables) > 1),
        *_not_run(outcome),
        *_quick(outcome),
    ]


_Judged = Sequence[tuple[CellOutcome, Verdict]]


def _verdict(outcome: Outcome) -> str:
    total, num_agree = len(outcome.judged), outcome.count(Verdict.REPRODUCED)
    if not total:
        why = "the trials of all cells were left out" if outcome.num_left_out else "nothing was published to hold it to"
        return f"No verdict: {why}."
    head = outcome.verdict.value.capitalize()
    if outcome.count(Verdict.NOT_RUN) == total:
        return f"{head}: nothing was measured of {words.counted(total, 'cell')}."
    agree = "its one cell agrees" if total == 1 else f"all {total} cells agree"
    if num_agree < total:
        agree = f"{num_agree} of {words.counted(total, 'cell')} agree"
    others = f"; {_others(outcome.judged)}" if num_agree < total else ""
    changed = f" This is not the paper's question: {', '.join(outcome.changes)}." if outcome.changes else ""
    return f"{head}: {agree} {_with(outcome)}{others}.{changed}"


def _with(outcome: Outcome) -> str:
    """With what the cells agree: the source, theory, earlier measurements of ours."""
    named: Mapping[Origin, str] = {
        "published": words.cited(outcome.paper.source),
        "theory": "theory",
        "ours": "earlier measurements of ours",
    }
    origins = [one.table.origin for one, _ in outcome.judged]
    parts = [(name, count) for origin, name in named.items() if (count := origins.count(origin))]
    if len(parts) == 1:
        return f"with {parts[0][0]}"
    return "with what they are held to: " + ", ".join(f"{count} with {name}" for name, count in parts)


def _others(judged: _Judged) -> str:
    counts = {verdict: sum(its is verdict for _, its in judged) for verdict in WORST_FIRST if verdict in _OTHERS}
    return ", ".join(f"{count} {_OTHERS[verdict][count > 1]}" for verdict, count in counts.items() if count)


def _exceptions(judged: _Judged, *, has_tables: bool) -> Iterator[str]:
    """The cells that are not reproduced, or may not be, a sentence each."""
    for verdict in (Verdict.NOT_REPRODUCED, Verdict.UNDERPOWERED):
        own = [(one, one.found) for one, its in judged if its is verdict and one.found]
        for one, found in own[:MOST_NAMED]:
            yield _sentence(one, found, where=f" in {one.table.name}" if has_tables else "")
        if len(own) > MOST_NAMED:
            yield f"{verdict.value.capitalize()}: {len(own) - MOST_NAMED} more, which the tables have."


def _sentence(one: CellOutcome, found: Judgement, *, where: str) -> str:
    check, digits = one.cell.check, one.table.digits
    verdict = found.verdict.value.capitalize() if found.verdict else ""
    published, allowed = words.published_words(check, digits), words.allowed_words(check)
    origin = words.ORIGINS[one.table.origin]
    text = f"{verdict}: {label(one, ' at ')}{where}{':' if found.mean is None else ' measured'} "
    text += words.measured_words(found, digits)
    text += "" if published == words.NOTHING else f", {origin} {published}"
    text += "" if allowed in (words.NOTHING, published) else f", allowed {allowed}"
    if found.verdict is Verdict.UNDERPOWERED:
        text += f"; {found.note or f'it would take {words.more_seeds(found)}'}"
    return f"{text}."


def _not_run(outcome: Outcome) -> list[str]:
    own = [one.found for one, verdict in outcome.judged if verdict is Verdict.NOT_RUN and one.found]
    if not own:
        return []
    why = "; ".join(reason.rstrip(".") for reason in outcome.reasons)
    why = why or "; ".join(dict.fromkeys(found.note for found in own if found.note))
    return [f"Not run: {words.counted(len(own), 'cell')}{f' ({why})' if why else ''}."]


def _quick(outcome: Outcome) -> list[str]:
    if not outcome.is_quick:
        return []
    total = len(outcome.cells)
    text = f"Quick: {total - outcome.num_left_out} of {words.counted(total, 'cell')}"
    return [f"{text}; the others were left out by --quick." if outcome.num_left_out else f"{text}, with fewer seeds."]


def _page(outcome: Outcome, tables: Sequence[Sheet], pictures: Sequence[Picture], *, facts: Sequence[str]) -> Page:
    paper = outcome.paper
    of_tables = {figure.name: figure.table for figure in paper.figures if figure.table is not None}
    by_name = {sheet.name: sheet for sheet in tables}
    warnings = _quick(outcome)
    if outcome.changes:
        warnings.append(f"This is not the paper's question: {', '.join(outcome.changes)}.")
    first = Section(
        id="verdict",
        heading="Verdict",
        label_reason=_source(paper.source),
        answers=[_verdict(outcome), f"The claim: {paper.statement}", *_not_run(outcome)],
        pictures=[picture for picture in pictures if picture.name not in of_tables],
        remarks=list(_remarks(outcome)),
    )
    sections = [
        first,
        *(
            Section(
                id=f"of-{table.name}",
                heading=table.title,
                label_reason=_agreement(outcome, table),
                answers=_of_table(outcome, table),
                sheets=[by_name[f"{table.name}_{kind}"] for kind in ("published", "measured", "cells")],
                pictures=[picture for picture in pictures if of_tables.get(picture.name) == table.name],
            )
            for table in paper.tables
        ),
    ]
    if CLAIMS in by_name:
        section = Section(id="claims", heading="Claims", answers=[_of_claims(outcome)], sheets=[by_name[CLAIMS]])
        sections.append(section)
    return Page(title=paper.title, summary=facts, warnings=warnings, sections=sections, version=__version__)


def _source(source: Source) -> str:
    return f"{source.authors} ({source.year}): {source.title.rstrip('.')}, {source.where.rstrip('.')}. {source.url}"


def _remarks(outcome: Outcome) -> Iterator[str]:
    paper = outcome.paper
    if paper.gaps:
        yield "What the source leaves open, and how it is filled here:"
    yield from paper.gaps
    yield _cost(paper)
    yield (
        "A cell is reproduced where Student's interval at 95 % for the mean over seeds lies in what is allowed, not "
        "reproduced where it lies outside, and underpowered where these seeds cannot tell. The paper is reproduced "
        "where all its cells are."
    )
    yield f"{paper.name}, SHA-256 of its file {paper.digest[:12]}."


def _cost(paper: Paper) -> str:
    quick = ""
    if paper.quick_minutes is not None and paper.quick_minutes != paper.minutes:
        quick = f"{_minutes(paper.quick_minutes)} with --quick"
    if paper.minutes is None:
        return f"How long it takes on {paper.machine} was not measured{f'; {quick}' if quick else ''}."
    return f"It takes {_minutes(paper.minutes)} on {paper.machine}{f', and {quick}' if quick else ''}."


def _minutes(count: float) -> str:
    return f"{count:g} minute{'s' if count != 1.0 else ''}" if count >= 1.0 else f"{60.0 * count:.0f} seconds"


def _agreement(outcome: Outcome, table: Table) -> str:
    """That all agree, or that there is nothing to agree: nothing that the top of the page has to say."""
    own = of_table(outcome, table)
    verdicts = [one.found.verdict for one in own if one.found and one.found.verdict]
    if not verdicts:
        return "Left out of the quick run." if any(one.found is None for one in own) else "No cell has a verdict."
    if set(verdicts) != {Verdict.REPRODUCED}:
        return ""
    return f"All {len(verdicts)} cells agree." if len(verdicts) > 1 else "Its one cell agrees."


def _of_table(outcome: Outcome, table: Table) -> list[str]:
    """What does not agree."""
    judged = [(one, verdict) for one, verdict in outcome.judged if one.table.name == table.name]
    num_agree = sum(verdict is Verdict.REPRODUCED for _, verdict in judged)
    if num_agree == len(judged):
        return []
    first = f"{num_agree} of {words.counted(len(judged), 'cell')} agree; {_others(judged)}."
    return [first, *_exceptions(judged, has_tables=False)]


def _of_claims(outcome: Outcome) -> str:
    found = [words.claim_verdict(one.found) for one in outcome.claims]
    found += [words.said_verdict(one.verdict) for one in outcome.said]
    kinds = ("confirmed", "refuted", "underpowered", "not run")
    return ", ".join(f"{count} {kind}" for kind in kinds if (count := found.count(kind))).capitalize() + "."


def _text(page: Page) -> str:
    """The page as Markdown."""
    parts = [f"# {markdown_text(page.title)}", " · ".join(map(markdown_text, page.summary))]
    parts += [f"> {markdown_text(warning)}" for warning in page.warnings]
    for section in page.sections:
        parts.append(f"## {markdown_text(section.heading)}")
        parts += [markdown_text(line) for line in (section.label_reason, *section.answers) if line]
        parts += [markdown(sheet).rstrip() for sheet in section.sheets]
        parts += [
            f"![{markdown_text(picture.title)}](figures/{picture.name}.png)\n\n{markdown_text(picture.caption)}"
            for picture in section.pictures
        ]
        parts += ["\n".join(f"- {markdown_text(line)}" for line in section.remarks)] if section.remarks else []
    return "\n\n".join(part for part in parts if part) + "\n"


def _latex(tables: Sequence[Sheet]) -> str:
    """All tables one below the other, none wider than the page, for a document to take in."""
    parts = [r"% \usepackage{booktabs,graphicx}"]
    for sheet in tables:
        lines = [line for line in latex(sheet).splitlines() if line != _LATEX_HEAD]
        parts.append("\n".join([_LATEX_START, *lines, "}"]))
    return "\n\n".join(parts) + "\n"
