"""`optbench claims`: what is said of optimizers, with what the reproductions that were run here say of it."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from optbench.console import console
from optbench.errors import UsageError
from optbench.papers import shelf
from optbench.papers.paper import Paper
from optbench.papers.reproduce import QUICK, SCHEMA, WHOLE
from optbench.papers.running import store_name
from optbench.terminal import rich_table
from optbench.writing import markdown_table, markdown_text

FILE = "claims.yaml"
CONFIRMED, REFUTED, DEPENDS, NOT_RUN = "confirmed", "refuted", "depends", "not run"
UNDERPOWERED = "underpowered"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A check of a claim.

    Attributes:
        paper: where it is.
        text: what is held against what is measured.
        source: who says so.
        verdict: one of the five.
        measured: in words; empty where nothing was.
        notes: what else is to be known: that the paper's file has changed since, or that the run was a quick one.
    """

    paper: str
    text: str
    source: str
    verdict: str
    measured: str
    notes: Sequence[str]

    @property
    def is_ours(self) -> bool:
        """Whether we say so ourselves: that does not decide on what others say."""
        return self.source.startswith("our ")


@dataclass(frozen=True, kw_only=True)
class ListedClaim:
    """A claim of the list.

    Attributes:
        id: C01 to C52.
        text: what is said.
        by: who says so.
        papers: whose reproduction checks it.
        findings: of those that have been run.
        num_checks: how many there are in all.
    """

    id: str
    text: str
    by: str
    papers: Sequence[str]
    findings: Sequence[Finding]
    num_checks: int

    @property
    def verdict(self) -> str:
        """What the checks that were run say, ours aside where others say something too."""
        told = [finding for finding in self.findings if finding.verdict != NOT_RUN]
        deciding = [finding for finding in told if not finding.is_ours] or told
        found = {finding.verdict for finding in deciding}
        if {CONFIRMED, REFUTED} <= found or DEPENDS in found:
            return DEPENDS
        return next((word for word in (REFUTED, UNDERPOWERED, CONFIRMED) if word in found), NOT_RUN)

    @property
    def verdict_words(self) -> str:
        """The same, with how many of the checks have been run, where those are not all."""
        num_told = sum(finding.verdict != NOT_RUN for finding in self.findings)
        part = f" ({num_told} of {self.num_checks} checks)" if 0 < num_told < self.num_checks else ""
        return self.verdict + part

    @property
    def command(self) -> str:
        """What measures it."""
        return f"optbench reproduce {' '.join(self.papers)}"


def listed(results: Path) -> list[ListedClaim]:
    """All claims, with what the reproductions in a results folder found.

    Raises:
        UsageError: a record there is damaged, or of a later optbench.
    """
    papers = shelf.all_papers()
    checks = {paper.name: checks_of(paper) for paper in papers}
    found = {paper.name: list(_findings(paper, results)) for paper in papers}
    content = yaml.safe_load((files("optbench.conf") / FILE).read_text(encoding="utf-8"))
    return [
        ListedClaim(
            id=claim_id,
            text=said["text"],
            by=said["by"],
            papers=[paper.name for paper in papers if claim_id in checks[paper.name]],
            findings=[finding for own in found.values() for other, finding in own if other == claim_id],
            num_checks=sum(own.count(claim_id) for own in checks.values()),
        )
        for claim_id, said in content["claims"].items()
    ]


def checks_of(paper: Paper) -> list[str]:
    """The claims that a paper checks, by itself or in the experiments whose trials it runs: an id for each check."""
    return [
        *(claim.id for claim in paper.claims),
        *(
            str(claim["id"])
            for sweep in paper.sweeps
            for line in sweep.overrides
            if line.startswith("experiment=")
            for claim in _experiment(line.partition("=")[2]).get("claims") or ()
        ),
    ]


def table(claims: Sequence[ListedClaim]) -> pd.DataFrame:
    """A line for each claim, and one for each check of those that have several."""
    return pd.DataFrame([line for claim in claims for line in _lines(claim)])


def show(claims: Sequence[ListedClaim]) -> None:
    """Print the list."""
    found = console()
    found.print(rich_table(table(claims), title="claims"))
    found.print("[dim]--markdown prints it as a page. A check that begins with a dash is one of several.[/]")


def page(claims: Sequence[ListedClaim]) -> str:
    """The list as docs/claims.md."""
    counts = {
        word: sum(claim.verdict == word for claim in claims)
        for word in (CONFIRMED, REFUTED, DEPENDS, UNDERPOWERED, NOT_RUN)
    }
    told = ", ".join(f"{count} {word}" for word, count in counts.items() if count)
    lines = [
        "# Claims\n",
        "What is said of optimizers, and what was measured. `optbench claims --markdown` writes this page from the "
        "reproductions in `results/`; each line gives the command that measures it again.\n",
        f"{len(claims)} claims: {told}.\n",
        "*confirmed*: no check that was run says otherwise, and the seeds could tell. *refuted*: none holds. "
        "*depends*: some hold and some do not. *underpowered*: the seeds cannot tell. *not run*: there is no result "
        "yet, for the reason that the command gives. What we say ourselves is shown, and decides only where nobody "
        "else says more.\n",
        markdown_table(
            pd.DataFrame(
                {
                    "claim": [claim.id for claim in claims],
                    "says": [f"{claim.text} ({claim.by})" for claim in claims],
                    "verdict": [claim.verdict_words for claim in claims],
                    "command": [claim.command for claim in claims],
                }
            )
        ),
        "\n## Checks\n",
    ]
    for claim in claims:
        if claim.findings:
            lines.append(f"**{claim.id}** {markdown_text(claim.text)}: *{claim.verdict}*\n")
            lines += [f"- {markdown_text(_sentence(finding))}" for finding in claim.findings]
            lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def _sentence(finding: Finding) -> str:
    told = "; ".join(filter(None, [finding.measured, *finding.notes]))
    said = f"{finding.text}: {finding.verdict}" + (f" ({told})" if told else "")
    return f"{said}; {finding.source}; {finding.paper}"


def _lines(claim: ListedClaim) -> Iterator[dict[str, str]]:
    several = len(claim.findings) > 1
    measured = "" if several or not claim.findings else _figure(claim.findings[0])
    yield {
        "claim": claim.id,
        "says": claim.text,
        "verdict": claim.verdict_words,
        "measured": measured,
        "command": claim.command,
    }
    for finding in claim.findings if several else ():
        yield {
            "claim": "",
            "says": f"- {finding.text}",
            "verdict": finding.verdict,
            "measured": _figure(finding),
            "command": "",
        }


def _figure(finding: Finding) -> str:
    return "; ".join(filter(None, [finding.measured, *finding.notes]))


def _findings(paper: Paper, results: Path) -> Iterator[tuple[str, Finding]]:
    """Of the whole reproduction, or of the quick one where there is no other."""
    folder = results / store_name(paper)
    path = next((path for kind in (WHOLE, QUICK) if (path := folder / f"{kind}.json").is_file()), None)
    if path is None:
        return
    try:
        record: Mapping[str, Any] = json.loads(path.read_bytes())
        if record["schema"] > SCHEMA:
            raise UsageError(f"{path}: a later optbench wrote schema {record['schema']}; this one reads {SCHEMA}.")
        notes = [
            *(["stale: the paper's file has changed since"] if record["digest"] != paper.digest else []),
            *(["quick"] if record["is_quick"] else []),
        ]
        found = [
            (
                str(claim["id"]),
                Finding(
                    paper=paper.name,
                    text=claim["text"],
                    source=claim["source"],
                    verdict=claim["verdict"],
                    measured=claim["measured"] or "",
                    notes=notes,
                ),
            )
            for claim in record["claims"]
        ]
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path}: no reproduction can be read from it. Run again: {_again(paper)}") from error
    yield from found


def _again(paper: Paper) -> str:
    return f"optbench reproduce {paper.name}"


def _experiment(name: str) -> Mapping[str, Any]:
    content: Mapping[str, Any] = yaml.safe_load(
        (files("optbench.conf") / "experiment" / f"{name}.yaml").read_text(encoding="utf-8")
    )
    return content
