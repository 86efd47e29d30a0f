"""`optbench fit`: what would fit into the memory of a card, predicted without it."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from rich.markup import escape

from optbench import cost_cells, machine
from optbench.asking import StoppedError
from optbench.console import console, warn
from optbench.cost import Cost, Memory
from optbench.costing import checked
from optbench.costs import cost_id, kept_below, memory_from_json
from optbench.errors import Interrupted, UsageError
from optbench.probing import Probes
from optbench.terminal import rich_table
from optbench.units import GIB, in_bytes

# What is kept free on a GPU: CUDA's context and libraries, and memory in pieces too small to be used.
RESERVED_BYTES = GIB


def show_fit(configs: Iterable[Mapping[str, Any]], *, allowed: Sequence[str] = ()) -> int:
    """Print the memory that a step of each trial is predicted to take, whether it fits, and the largest batch.

    Args:
        configs: composed and resolved.
        allowed: packages that the command line allows configs to call, besides those of the catalogue.

    Returns:
        0.

    Raises:
        UsageError: a config is wrong.
        Interrupted: a signal came.
    """
    from optbench.signals import Signals
    from optbench.sweep import Settings

    first, trials = checked(configs)
    distinct = {cost_id(trial.config): trial.config for trial in trials}
    results = Settings.from_config(first).results
    page = console()
    with Signals() as signals:
        probes = Probes(allowed=allowed, interruption=signals)
        found: list[Cost] = []
        answers: dict[str, Mapping[str, Any]] = {}
        rooms: dict[str, str] = {}
        for number, (key, config) in enumerate(distinct.items(), start=1):
            what = f"fit {number}/{len(distinct)}: {config['optimizer']['name']} on {config['task']['name']}"
            memory_bytes, rooms[key] = _room(config)
            with page.status(escape(what)):
                try:
                    answers[key] = probes.fit(config, memory_bytes=memory_bytes)
                except StoppedError:
                    break
            found.append(_cost(key, config, answers[key]))
    measured = _measured(results)
    for heading, group in cost_cells.grouped(found).items():
        page.print(rich_table(_words(group, answers, measured=measured), title=f"fit, predicted: {heading}"))
        page.print(f"[dim]{escape(rooms[group[0].id])}[/]", soft_wrap=True)
    page.print(
        "[dim]Predicted: a step gone through without data, by the kernels of the CPU, in tensor bytes; nothing was "
        "run. The largest batch is the largest task.batch_size whose predicted peak is within that.[/]"
    )
    for cost in found:
        if reason := answers[cost.id].get("failure"):
            warn(f"{cost.config['optimizer']['name']} on {cost.config['task']['name']}: not predictable: {reason}")
    if signals.exit_code is not None:
        raise Interrupted(signals.exit_code)
    return 0


def _room(config: Mapping[str, Any]) -> tuple[int, str]:
    """The bytes that a step may take, and where they come from, in words.

    Raises:
        UsageError: nobody can tell.
    """
    hardware = config["hardware"]
    limit = hardware.get("memory_limit_gb")
    if limit is not None and hardware["device"] == "cpu":
        raise UsageError("hardware.memory_limit_gb is of a GPU, and this is hardware=cpu. Leave one of them out.")
    gpus = machine.gpus()
    if limit is not None:
        total, whose = int(limit * GIB), "hardware.memory_limit_gb"
    elif hardware["device"] != "cpu" and gpus:
        total, whose = gpus[0].total_bytes, gpus[0].name
    elif hardware["device"] == "cuda":
        raise UsageError(
            "hardware.device=cuda: there is no GPU here whose memory could be told.\n"
            "Name a card, as in hardware=rtx4090, or give hardware.memory_limit_gb."
        )
    else:
        available = machine.available_bytes()
        if available is None:
            raise UsageError("This system does not tell how much memory is available. Name a card: hardware=rtx4090.")
        return available, f"Memory: {in_bytes(available)}, what is available beside the processor now."
    room = max(total - RESERVED_BYTES, 0)
    return room, (
        f"Memory: {in_bytes(total)} ({whose}), of which {in_bytes(RESERVED_BYTES)} is kept free for CUDA's context and "
        "libraries and for pieces too small to be used."
    )


def _cost(key: str, config: Mapping[str, Any], answer: Mapping[str, Any]) -> Cost:
    fit = answer.get("fit") or {}
    return Cost(
        id=key,
        config=config,
        memory=None,
        predicted=memory_from_json(fit.get("predicted")),
        time=None,
        contended=None,
        failures={},
        environment={"device": _device(config)},
    )


def _device(config: Mapping[str, Any]) -> str:
    limit = config["hardware"].get("memory_limit_gb")
    return str(config["hardware"]["device"]) + ("" if limit is None else f" with {limit:g} GiB")


def _words(
    costs: Sequence[Cost], answers: Mapping[str, Mapping[str, Any]], *, measured: Mapping[str, Memory]
) -> pd.DataFrame:
    lines = []
    for name, cost in zip(cost_cells.names(costs), costs, strict=True):
        fit, memory = answers[cost.id].get("fit"), cost.predicted
        if fit is None or memory is None:
            lines.append({"optimizer": name})
            continue
        parts = {
            "parameters": memory.parameter_bytes + memory.frozen_bytes,
            "gradients": memory.gradient_bytes,
            "state": memory.state_bytes,
            "activations": memory.activation_bytes,
            "in step()": memory.transient_bytes,
        }
        batch, largest = cost.config["task"].get("batch_size"), fit["largest_batch_size"]
        lines.append(
            {
                "optimizer": name,
                **{part: in_bytes(count) for part, count in parts.items()},
                "peak (predicted)": in_bytes(memory.peak_bytes),
                "peak (measured)": in_bytes(measured[cost.id].peak_bytes) if cost.id in measured else "-",
                "fits": "yes" if fit["fits"] else "no",
                "batch": "-" if batch is None else str(batch),
                "largest batch": "-"
                if largest is None
                else f"{largest}{' (all data)' if fit['limited_by'] == 'data' else ''}",
            }
        )
    return pd.DataFrame(lines).fillna("-")


def _measured(results: Path) -> dict[str, Memory]:
    """What was measured of the same on a device that is here, in whatever sweep below the results folder."""
    return {
        cost.id: cost.memory
        for cost in kept_below(results)
        if cost.memory is not None
        and machine.is_here(str(cost.environment.get("device")), cost.config["hardware"]["device"])
    }
