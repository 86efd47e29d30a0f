"""From an analysis to files: the page, the tables and the pictures, all in one folder."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from optbench import __version__, answers, cells
from optbench.analysis import Analysis
from optbench.contest import Contest
from optbench.failures import FAILED
from optbench.folder import Folder
from optbench.gallery import Subject, draw
from optbench.page import Page, Section, render
from optbench.pictures.picture import Picture
from optbench.sheet import Sheet
from optbench.stats import COVERAGE
from optbench.writing import csv, latex, markdown, markdown_text

PAGE = "report.html"
# What a page can hold and still be sent by mail, and opened on a phone.
MAX_PICTURES = 24
MAX_PICTURE_BYTES = 1_400_000
MAX_ROWS = 150

HOW_TO_READ = (
    "Best: the setting of an optimizer with the best mean over seeds of the task's first metric, or with the fewest "
    "steps to the target where there is one; settings with failed seeds come after all that have none. It was chosen "
    "by the same seeds that it is judged by, so it is a little too good, the more so the more settings were tried.",
    "[a, b] after a mean: percentile bootstrap over seeds at 95 %. [a, b] after a difference: Student's t over the "
    "seeds that both have, since equal seeds share weights and minibatches. ±: the longer side of the interval.",
    "Few seeds make bootstrap intervals too narrow: they hold the true mean "
    + ", ".join(f"{share * 100:.0f} % of the time with {num_seeds}" for num_seeds, share in COVERAGE.items())
    + " seeds.",
    "A failure is a row: it counts in every rank, as no training in scores, and as never in targets.",
    "discriminating, saturated, unsolved: whether the best optimizer does better than untuned SGD, and than one that "
    "learns nothing. On a saturated or an unsolved task the order of optimizers says little.",
)


@dataclass(frozen=True, kw_only=True)
class Publication:
    """What was written.

    Attributes:
        page: the file to open.
        num_files: in all.
        answers: what the page begins with.
    """

    page: Path
    num_files: int
    answers: Sequence[str]


def publish(analysis: Analysis, path: Path, *, progress: Callable[[str, int, int], None]) -> Publication:
    """Write a report.

    Args:
        analysis: of the trials.
        path: the folder, made where it is not there.
        progress: told what is being done, how many parts are done and how many there are.

    Raises:
        OSError: the folder cannot be written to, or the disk is full.
    """
    folder = Folder(path)
    pictures: list[Picture] = []
    subject = Subject(
        contests=analysis.contests, slugs=analysis.slugs, aggregate=analysis.aggregate, curves=analysis.curves
    )
    for picture in draw(subject, progress=progress):
        pictures.append(picture)
        folder.write(f"figures/{picture.name}.svg", picture.svg)
        folder.write(f"figures/{picture.name}.png", picture.png)
        folder.write(f"figures/{picture.name}.csv", csv(picture.numbers))
    progress("writing tables", 1, 1)
    sheets = analysis.all_sheets()
    for sheet in sheets:
        folder.write(f"tables/{sheet.name}.md", markdown(sheet))
        folder.write(f"tables/{sheet.name}.csv", csv(sheet.numbers))
        if len(sheet.words) <= MAX_ROWS:  # LaTeX is for printing
            folder.write(f"tables/{sheet.name}.tex", latex(sheet))
    page = _page(analysis, sheets, pictures)
    written = folder.write(PAGE, render(page))
    folder.write("report.md", _text(page))
    folder.close()
    found = [line for section in page.sections for line in section.answers]
    return Publication(page=written, num_files=len(folder.written), answers=found)


def _page(analysis: Analysis, sheets: Sequence[Sheet], pictures: Sequence[Picture]) -> Page:
    shown = _chosen(analysis, pictures)
    by_name = {sheet.name: sheet for sheet in sheets}
    index = analysis.gathered.index
    num_failed = int(index["status"].isin(FAILED).sum())
    optimizers = {contender.optimizer for contest in analysis.contests for contender in contest.contenders}
    summary = [
        _counted(len(index), "trial"),
        _counted(len(analysis.contests), "task"),
        _counted(len(optimizers), "optimizer"),
        f"{num_failed} failed",
        *_distinct(index, "device"),
        *(f"torch {version}" for version in _distinct(index, "torch")),
    ]
    sections = [
        *(_of_contest(analysis, contest, by_name=by_name, shown=shown) for contest in analysis.contests),
        *_of_all(analysis, by_name=by_name, shown=shown),
    ]
    title = "optbench: " + ", ".join(
        dict.fromkeys(str(contest.config["task"]["name"]) for contest in analysis.contests)
    )
    return Page(
        title=title, summary=summary, warnings=analysis.gathered.remarks, sections=sections, version=__version__
    )


_Shown = tuple[Sequence[Picture], Sequence[Picture]]  # on the page, and in files alone


def _chosen(analysis: Analysis, pictures: Sequence[Picture]) -> _Shown:
    """The pictures that go on the page: the first of each task before the second of any."""
    by_task: dict[str | None, list[Picture]] = {}
    for picture in pictures:
        by_task.setdefault(picture.task, []).append(picture)
    rounds = [by_task.get(None, []), *([] for _ in range(max(map(len, by_task.values()), default=0)))]
    for contest in analysis.contests:
        for place, picture in enumerate(by_task.get(contest.task, [])):
            rounds[place + 1].append(picture)
    kept: list[Picture] = []
    num_bytes = 0
    for picture in (picture for each in rounds for picture in each):
        if len(kept) < MAX_PICTURES and num_bytes + len(picture.svg) <= MAX_PICTURE_BYTES:
            kept.append(picture)
            num_bytes += len(picture.svg)
    names = {picture.name for picture in kept}
    return [one for one in pictures if one.name in names], [one for one in pictures if one.name not in names]


def _of_contest(analysis: Analysis, contest: Contest, *, by_name: dict[str, Sheet], shown: _Shown) -> Section:
    slug = analysis.slugs[contest.task]
    own = [by_name[name] for kind in ("best", "default", "settings") if (name := f"{kind}_{slug}") in by_name]
    on_page, in_files = shown
    index = analysis.gathered.index
    concerned = index[index["id"].isin([trial_id for row in contest.rows for trial_id in row.ids])]
    return Section(
        id=f"task-{slug}",
        heading=contest.task,
        label=contest.label or "",
        label_reason=contest.label_reason,
        answers=answers.answer(contest),
        sheets=[_cut(sheet) for sheet in own],
        pictures=[picture for picture in on_page if picture.task == contest.task],
        remarks=cells.notes(contest.rows, concerned),
        left_out=_files([picture for picture in in_files if picture.task == contest.task]),
    )


def _of_all(analysis: Analysis, *, by_name: dict[str, Sheet], shown: _Shown) -> Iterator[Section]:
    on_page, in_files = shown
    if analysis.aggregate is not None:
        yield Section(
            id="over-tasks",
            heading="Over all tasks",
            answers=answers.answer_over_tasks(analysis.aggregate),
            sheets=[by_name["over_tasks"]],
            pictures=[picture for picture in on_page if picture.task is None],
            left_out=_files([picture for picture in in_files if picture.task is None]),
        )
    elif len(analysis.contests) > 1:
        reason = "Not comparable over tasks: it takes two optimizers that ran on all tasks, with seeds in common."
        yield Section(id="over-tasks", heading="Over all tasks", remarks=[reason])
    yield Section(id="hyperparameters", heading="Hyperparameters", sheets=[_cut(by_name["hyperparameters"])])
    costs = [sheet for name, sheet in by_name.items() if name.startswith(("memory_", "time_"))]
    if costs:
        yield Section(id="cost", heading="Cost", sheets=[_cut(sheet) for sheet in costs])
    if "failures" in by_name:
        yield Section(id="failures", heading="Failures", sheets=[_cut(by_name["failures"])])
    yield Section(id="how-to-read", heading="How to read this", remarks=HOW_TO_READ)


def _cut(sheet: Sheet) -> Sheet:
    """What of a table goes on the page."""
    if len(sheet.words) <= MAX_ROWS:
        return sheet
    note = f"The first {MAX_ROWS} of {len(sheet.words)} rows; all are in tables/{sheet.name}.csv."
    return Sheet(
        name=sheet.name,
        title=sheet.title,
        words=sheet.words[:MAX_ROWS],
        keys=sheet.keys[:MAX_ROWS],
        numbers=sheet.numbers[:MAX_ROWS],
        notes=[note, *sheet.notes],
    )


def _files(pictures: Sequence[Picture]) -> list[str]:
    return [f"figures/{picture.name}.svg" for picture in pictures]


def _distinct(index: pd.DataFrame, column: str) -> list[str]:
    """What trials have in a column; nothing where none has it."""
    return sorted({str(value) for value in index[column].dropna()}) if column in index else []


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}" + ("" if count == 1 else "s")


def _text(page: Page) -> str:
    """The page as Markdown, without its pictures' numbers: they are files beside it."""
    parts = [f"# {markdown_text(page.title)}", " · ".join(map(markdown_text, page.summary))]
    parts += [f"> {markdown_text(warning)}" for warning in page.warnings]
    for section in page.sections:
        parts.append(f"## {markdown_text(section.heading)}")
        parts += [markdown_text(line) for line in section.answers]
        if section.label_reason:
            parts.append(
                markdown_text(f"{section.label}: {section.label_reason}" if section.label else section.label_reason)
            )
        parts += [markdown(sheet).rstrip() for sheet in section.sheets]
        parts += [
            f"![{markdown_text(picture.title)}](figures/{picture.name}.png)\n\n{markdown_text(picture.caption)}"
            for picture in section.pictures
        ]
        parts += ["\n".join(f"- {markdown_text(line)}" for line in section.remarks)] if section.remarks else []
    return "\n\n".join(parts) + "\n"
