"""What the experiments whose trials a paper runs say of them, and draw."""

from collections.abc import Mapping, Sequence
from typing import Any

from optbench import claims as memory_claims
from optbench import figures
from optbench.curve_claims import Record, curve_claims
from optbench.curve_claims import table as curve_table
from optbench.papers.outcome import SaidOutcome
from optbench.store import Store

Config = Mapping[str, Any]


def said(config: Config, records: Sequence[Record]) -> list[SaidOutcome]:
    """The claims of the experiment that a config is from."""
    if not config.get("claims"):
        return []
    asked = curve_claims(config["claims"])
    lines = curve_table(asked, records).to_dict("records")
    found = [
        SaidOutcome(
            id=claim.id, text=claim.text, source=claim.source, measured=line["measured"], verdict=line["verdict"]
        )
        for claim, line in zip(asked, lines, strict=True)
    ]
    for claim in memory_claims.claims(config["claims"]):
        own = [record for record in records if record["config"]["optimizer"]["name"] == claim.optimizer]
        sizes = sorted(filter(None, map(memory_claims.sizes_of, own)), key=lambda size: size.num_parameters)
        told = [(size, claim.verdict(size)) for size in {size.num_parameters: size for size in sizes}.values()]
        said_of = [(size, verdict) for size, verdict in told if verdict in ("holds", "does not hold")]
        verdicts = {verdict for _, verdict in said_of}
        found.append(
            SaidOutcome(
                id=claim.id,
                text=claim.text,
                source=claim.source,
                measured=", ".join(f"{claim.measured(size):.4g} ({size.num_parameters:,})" for size, _ in said_of),
                verdict=verdicts.pop() if len(verdicts) == 1 else "depends" if verdicts else "not measured",
            )
        )
    return found


def drawn(config: Config, records: Sequence[Record], store: Store) -> list[str]:
    """The figures of the experiment that a config is from."""
    if not config.get("figures"):
        return []
    return [str(path) for figure in figures.figures(config["figures"]) for path in figures.draw(figure, records, store)]
