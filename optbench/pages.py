"""Pages of docs/ that are made from the config files."""

from collections.abc import Iterable, Iterator
from decimal import Decimal

from optbench.catalogue import Entry, entries

HEAD = """\
# Optimizers

What `optimizer=<name>` gives, made from the files in [conf/optimizer](../conf/optimizer) by
`optbench list optimizers --markdown`; each file says more, and has every hyperparameter with its default.

**State** is bytes of optimizer state per trained parameter, in float32, measured on an MLP 784-100-100-10: AdamW's two
moments are 8. **Needs** is what the training loop does for an optimizer that SGD does not ask for:

| word | meaning |
|---|---|
| closure | `step(closure)` computes gradients itself, several for a step |
| extra pass | a second forward and backward pass over the same minibatch |
| train eval | other weights are evaluated than those that are trained |
| create graph | the gradient is differentiated again |
| matrices only | trains hidden matrices; the `companion` in its file trains the rest |
| lr free | estimates its own rate; `lr` is a factor of it |

"""


def optimizers_page() -> str:
    """The page of all optimizers, as Markdown."""
    found = entries("optimizer")
    plain = [entry for entry in found if "/" not in entry.name]
    return HEAD + "\n".join(
        [
            *_table(
                ("optimizer", "what", "from", "state", "momentum", "weight decay", "eps", "needs"),
                (_row(entry) for entry in plain),
            ),
            "",
            "## What does not work",
            "",
            "Found by test; everything that is not listed here does, `bfloat16` parameters and saved states included.",
            "With such parameters a step below half their spacing, 1/256 of a weight or more, rounds to nothing,",
            "whatever the optimizer: the rates of Lion or plain SGD for float32 can be too small.",
            "",
            *_table(
                ("optimizer", "what", "why"),
                (
                    (f"`{entry.name}`", limit.replace("_", " "), reason)
                    for entry in plain
                    for limit, reason in entry.limits.items()
                ),
            ),
            "",
            "## Where implementations part",
            "",
            "From the paper's rule in [optbench/optim/rules](../optbench/optim/rules), or from a relative, over the",
            "same gradients in float64: `optbench parity optimizer=<name>` shows it. What has a rule and is not listed",
            "here is equal to it to twelve digits over 200 steps.",
            "",
            *_table(
                ("optimizer", "from", "at step", "because"),
                (
                    (f"`{entry.name}`", f"{departure['from']}", f"{departure['step']}", str(departure["because"]))
                    for entry in plain
                    for departure in entry.config.get("departs") or []
                ),
            ),
            "",
            "## What is worth trying",
            "",
            "The `search` of each file, with its source there. `sweep=grid` tries seven rates for everyone (for",
            "`adafactor_transformers`, with `optimizer.relative_step=false`), and of what is besides, those keys that",
            "`sweep.keys` names; `sweep=random` and `sweep=optuna` draw from all of it. Controls have none.",
            "",
            *_table(
                ("optimizer", "lr", "besides"),
                (_searched(entry) for entry in plain if entry.config.get("search")),
            ),
            "",
            "## Presets",
            "",
            "Published settings of language models, each with its schedule and clipping where the source gives them:",
            "`optimizer=preset/llama2 optimizer.preset.size=70B`.",
            "",
            *_table(
                ("preset", "what", "sizes", "source"),
                (
                    (f"`{entry.name}`", entry.description, _sizes(entry), _link(entry))
                    for entry in found
                    if "/" in entry.name
                ),
            ),
            "",
        ]
    )


def _row(entry: Entry) -> tuple[str, ...]:
    state, conventions = entry.state_bytes_per_parameter, entry.conventions
    return (
        f"[`{entry.name}`](../conf/optimizer/{entry.name}.yaml)",
        f"{entry.description} ({_link(entry)})",
        entry.package if entry.name != "custom" else "",
        "" if state is None else f"{state:.4g}",
        *(conventions.get(name, "") for name in ("momentum", "weight_decay", "eps")),
        ", ".join(entry.capabilities).replace("_", " "),
    )


def _searched(entry: Entry) -> tuple[str, ...]:
    search = entry.config["search"]
    lowest, *_, highest = search["lr"]["grid"]
    others = (f"`{key}`" for key in search if key != "lr")
    return f"`{entry.name}`", f"{_written_out(lowest)} to {_written_out(highest)}", ", ".join(others)


def _written_out(value: float) -> str:
    return f"{Decimal(str(value)):f}"


def _link(entry: Entry) -> str:
    address = entry.source.replace("(", "%28").replace(")", "%29")  # a bare parenthesis could end the link
    return f"[source]({address})" if address else ""


def _sizes(entry: Entry) -> str:
    tables = (value for value in (entry.config.get("preset") or {}).values() if isinstance(value, dict))
    return ", ".join(map(str, next(tables, {})))


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |"
