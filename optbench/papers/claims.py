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
from optbench.papers.reproduce import RECORD, SCHEMA
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
        verdict: one of the five.
        measured: in words; empty where nothing was.
        is_stale: whether the paper's file has changed since.
        is_quick: whether it was measured in a quick run.
    """

    paper: str
    text: str
    verdict: str
    measured: str
    is_stale: bool
    is_quick: bool


@dataclass(frozen=True, kw_only=True)
class ListedClaim:
    """A claim of the list.

    Attributes:
        id: C01 to C52.
        text: what is said.
        by: who says so.
        papers: whose reproduction checks it.
        findings: of those that have been run.
    """

    id: str
    text: str
    by: str
    papers: Sequence[str]
    findings: Sequence[Finding]

    @property
    def verdict(self) -> str:
        """Confirmed or refuted where all checks say so, depends where they part."""
        found = {finding.verdict for finding in self.findings} - {NOT_RUN}
        if {CONFIRMED, REFUTED} <= found or DEPENDS in found:
            return DEPENDS
        return next((word for word in (UNDERPOWERED, CONFIRMED, REFUTED) if word in found), NOT_RUN)

    @property
    def command(self) -> str:
        """What measures it."""
        return f"optbench reproduce {' '.join(self.papers)}" if self.papers else "-"


def listed(results: Path) -> list[ListedClaim]:
    """All claims, with what the reproductions in a results folder found.

    Raises:
        UsageError: a record there is damaged, or of a later optbench.
    """
    papers = shelf.all_papers()
    found = {paper.name: list(_findings(paper, results)) for paper in papers}
    content = yaml.safe_load((files("optbench.conf") / FILE).read_text(encoding="utf-8"))
    return [
        ListedClaim(
            id=claim_id,
            text=said["text"],
            by=said["by"],
            papers=[paper.name for paper in papers if claim_id in ids_of(paper)],
            findings=[finding for own in found.values() for other, finding in own if other == claim_id],
        )
        for claim_id, said in content["claims"].items()
    ]


def ids_of(paper: Paper) -> set[str]:
    """The claims that a paper checks, by itself or in the experiments whose trials it runs."""
    return {claim.id for claim in paper.claims} | {
        str(claim["id"])
        for sweep in paper.sweeps
        for line in sweep.overrides
        if line.startswith("experiment=")
        for claim in _experiment(line.partition("=")[2]).get("claims") or ()
    }


def table(claims: Sequence[ListedClaim]) -> pd.DataFrame:
    """A line for each claim, and one for each check of those that have several."""
    return pd.DataFrame([line for claim in claims for line in _lines(claim)])


def show(claims: Sequence[ListedClaim]) -> None:
    """Print the list."""
    found = console()
    found.print(rich_table(table(claims), title="claims"))
    found.print("[dim]What measures a claim again: optbench reproduce <paper>. docs/claims.md has a page of it.[/]")


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
        "*confirmed* and *refuted*: all checks say so. *depends*: some hold and some do not. *underpowered*: the seeds "
        "cannot tell. *not run*: there is no result yet, for the reason that the command gives.\n",
        markdown_table(
            pd.DataFrame(
                {
                    "claim": [claim.id for claim in claims],
                    "says": [f"{claim.text} ({claim.by})" for claim in claims],
                    "verdict": [claim.verdict for claim in claims],
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
    notes = [finding.measured, "quick" if finding.is_quick else "", "stale" if finding.is_stale else ""]
    told = "; ".join(filter(None, notes))
    return f"{finding.text}: {finding.verdict}" + (f" ({told})" if told else "") + f", {finding.paper}"


def _lines(claim: ListedClaim) -> Iterator[dict[str, str]]:
    several = len(claim.findings) > 1
    measured = "" if several or not claim.findings else _figure(claim.findings[0])
    yield {
        "claim": claim.id,
        "says": claim.text,
        "verdict": claim.verdict,
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
    return finding.measured + (" (stale: run again)" if finding.is_stale else "")


def _findings(paper: Paper, results: Path) -> Iterator[tuple[str, Finding]]:
    path = results / store_name(paper) / RECORD
    try:
        record: Mapping[str, Any] = json.loads(path.read_bytes())
        schema, claims = record["schema"], record["claims"]
    except FileNotFoundError:
        return
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path}: no reproduction can be read from it. Run again: {_again(paper)}") from error
    if schema > SCHEMA:
        raise UsageError(f"{path}: written in schema {schema} by a later optbench; this one reads schema {SCHEMA}.")
    for claim in claims:
        yield (
            claim["id"],
            Finding(
                paper=paper.name,
                text=claim["text"],
                verdict=claim["verdict"],
                measured=claim["measured"] or "",
                is_stale=record["digest"] != paper.digest,
                is_quick=record["is_quick"],
            ),
        )


def _again(paper: Paper) -> str:
    return f"optbench reproduce {paper.name}"


def _experiment(name: str) -> Mapping[str, Any]:
    content: Mapping[str, Any] = yaml.safe_load(
        (files("optbench.conf") / "experiment" / f"{name}.yaml").read_text(encoding="utf-8")
    )
    return content
