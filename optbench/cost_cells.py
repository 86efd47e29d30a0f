"""What cost tables hold: in words for people, in numbers for pandas, and the notes that go with them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import pandas as pd

from optbench.cost import Cost, Memory, Phase, Spread
from optbench.settings import differing, distinctions, words
from optbench.units import in_bytes, in_milliseconds, in_percent

PLACE = ("task", "data", "model", "hardware")
WHO = ("optimizer", "param_groups", "max_grad_norm")
_NOT_A_COST = ("_target_", "lr")


def grouped(costs: Sequence[Cost]) -> dict[str, list[Cost]]:
    """The costs of each task on each hardware, by a heading for them."""
    by_task: dict[str, list[Cost]] = {}
    for cost in costs:
        by_task.setdefault(str(cost.config["task"]["name"]), []).append(cost)
    found: dict[str, list[Cost]] = {}
    for task, group in by_task.items():
        for cost, own in zip(group, distinctions([cost.config for cost in group], PLACE), strict=True):
            device = str(cost.environment.get("device") or cost.config["hardware"]["device"])
            heading = " ".join(filter(None, [task, own]))
            found.setdefault(f"{heading} on {device}", []).append(cost)
    return found


def names(costs: Sequence[Cost]) -> list[str]:
    """What tells these costs of one task and hardware apart."""
    found = differing([cost.config for cost in costs], WHO)
    others = [words({key: value for key, value in own.items() if key not in _NOT_A_COST}) for own in found]
    return [" ".join([cost.config["optimizer"]["name"], *own]) for cost, own in zip(costs, others, strict=True)]


def memory_words(costs: Sequence[Cost]) -> pd.DataFrame:
    """Bytes of a step and their parts; the measured figure where there is one, else the predicted one in brackets."""
    lines = []
    for name, cost in zip(names(costs), costs, strict=True):
        known = cost.memory or cost.predicted
        lines.append(
            {
                "optimizer": name,
                "parameters": _part(cost, "parameter_bytes"),
                "frozen": _part(cost, "frozen_bytes") if known and known.frozen_bytes else "",
                "gradients": _part(cost, "gradient_bytes"),
                "state": _part(cost, "state_bytes"),
                "activations": _part(cost, "activation_bytes"),
                "in step()": _part(cost, "transient_bytes"),
                "peak (measured)": _measured(cost),
                "peak (predicted)": in_bytes(cost.predicted.peak_bytes if cost.predicted else None),
                **_on_gpu(cost),
                "peak at": _told(cost, lambda memory: str(memory.peak_phase)),
                "state in": _told(cost, _dtypes),
                "parameters + state": _told(cost, lambda memory: f"{memory.times_parameters:.2f}x"),
                "with gradients": _told(cost, lambda memory: f"{memory.times_parameters_with_gradients:.2f}x"),
            }
        )
    table = pd.DataFrame(lines)
    return table.drop(columns="frozen") if (table["frozen"] == "").all() else table


def time_words(costs: Sequence[Cost]) -> pd.DataFrame:
    """Milliseconds of a step and its phases, and how they compare with those of the reference."""
    lines = []
    for name, cost in zip(names(costs), costs, strict=True):
        found = cost.time
        if found is None:
            lines.append({"optimizer": name, "step (ms)": "-"})
            continue
        lines.append(
            {
                "optimizer": f"{name} (contended)" if cost.contended else name,
                "step (ms)": _spread(found.step),
                **{f"{phase} (ms)": in_milliseconds(found.phases[phase].median) for phase in Phase},
                "optimizer's share": in_percent(found.optimizer_share),
                f"step / {found.reference}": _ratio(found.ratio),
                f"its optimizer / {found.reference}": _ratio(found.optimizer_ratio),
                "first step (ms)": in_milliseconds(found.first_step_seconds),
                **({"compilation (s)": f"{found.compile_seconds:.1f}"} if found.compile_seconds is not None else {}),
                **({"energy (J)": f"{found.joules_per_step:.3g}"} if found.joules_per_step is not None else {}),
                "blocks": f"{found.step.n} of {found.steps_per_block}",
            }
        )
    return pd.DataFrame(lines).fillna("-")


def numbers(costs: Sequence[Cost]) -> pd.DataFrame:
    """A row for each cost, a column for each figure, such as `memory.peak_bytes` and `time.step.median`."""
    return pd.DataFrame(
        [
            {
                "task": cost.config["task"]["name"],
                "optimizer": name,
                "device": cost.environment.get("device"),
                "contended": None if cost.contended is None else bool(cost.contended),
                **{
                    key: value
                    for part in ("memory", "predicted", "time")
                    if getattr(cost, part) is not None
                    for key, value in _flat(asdict(getattr(cost, part)), prefix=f"{part}.")
                },
                "optimizer_share": cost.time.optimizer_share if cost.time else None,
            }
            for group in grouped(costs).values()
            for name, cost in zip(names(group), group, strict=True)
        ]
    )


def notes(costs: Sequence[Cost]) -> list[str]:
    """What the tables say and on what, a sentence each."""
    memories = [memory for cost in costs if (memory := cost.memory) is not None]
    found = []
    if any(memory.counted == "tensors" for memory in memories):
        found.append(
            "Peaks on the CPU are of tensor bytes: all tensors alive at a time, data set excluded. "
            "What kernels take inside themselves is not in them."
        )
    if any(memory.counted == "allocated" for memory in memories):
        found.append("Peaks on the GPU are bytes that torch's allocator gave away, data set excluded.")
    found += _kernels(costs)
    if any(cost.predicted for cost in costs):
        found.append("Predicted: the step gone through without data, by the kernels of the CPU, in tensor bytes.")
    found.append(
        "state: each storage of the optimizer's state once. in step(): the most that the update takes besides. "
        "parameters + state, with gradients: in multiples of the trained parameters' bytes."
    )
    if times := [time for cost in costs if (time := cost.time) is not None]:
        found.append(
            f"Times: medians of blocks of steps, [10th, 90th percentile], each block in turn with one of "
            f"{times[0].reference} in the same process, whose own ratio to itself shows the noise. "
            "A block holds whole periods of an optimizer that refreshes something now and then."
        )
    return found


def _kernels(costs: Sequence[Cost]) -> list[str]:
    """Where kernels took more than tensors show."""
    lines = []
    for name, cost in zip(_full_names(costs), costs, strict=True):
        memory = cost.memory
        if memory is not None and memory.kernel_peak_bytes is not None:
            above = memory.kernel_peak_bytes / memory.peak_bytes
            if above > 1.01:
                lines.append(
                    f"{name}: by the allocator's events the peak is {in_bytes(memory.kernel_peak_bytes)}, {above:.2f} "
                    "times that of the tensors."
                )
    return lines


def warnings(costs: Sequence[Cost]) -> Iterator[str]:
    """What to know before trusting these figures, a sentence each."""
    for name, cost in zip(_full_names(costs), costs, strict=True):
        for what, reason in cost.failures.items():
            yield f"{name}: {what} is missing: {reason}"
        if cost.memory is not None and not cost.memory.is_settled:
            yield f"{name}: its state was still growing, or its period is too long: it may take more than this."
        if cost.contended:
            yield f"{name}: contended, its times are too long: {'; '.join(cost.contended)}."
        if cost.time is not None and not cost.time.is_steady:
            yield f"{name}: its steps were still changing when timing began."


def _full_names(costs: Sequence[Cost]) -> list[str]:
    """What tells the costs apart, with their task and its settings."""
    where = distinctions([cost.config for cost in costs], PLACE)
    return [
        " ".join(filter(None, [f"{name} on {cost.config['task']['name']}", own]))
        for name, cost, own in zip(names(costs), costs, where, strict=True)
    ]


def _part(cost: Cost, name: str) -> str:
    return _told(cost, lambda memory: in_bytes(getattr(memory, name)))


def _told(cost: Cost, tell: Callable[[Memory], str]) -> str:
    """What is told of the measurement; of the prediction, in brackets, where there is none."""
    if cost.memory is not None:
        return tell(cost.memory)
    return "-" if cost.predicted is None else f"({tell(cost.predicted)})"


def _dtypes(memory: Memory) -> str:
    """The dtypes of the state, the one with the most bytes first."""
    found = sorted(memory.state_bytes_by_dtype.items(), key=lambda pair: -pair[1])
    return ", ".join(dtype for dtype, count in found if count) or "-"


def _on_gpu(cost: Cost) -> dict[str, str]:
    """What a card must have, by the allocator and by the device itself."""
    memory = cost.memory
    if memory is None or memory.reserved_bytes is None:
        return {}
    return {"reserved": in_bytes(memory.reserved_bytes), "device": in_bytes(memory.device_bytes)}


def _measured(cost: Cost) -> str:
    if cost.memory is not None:
        return in_bytes(cost.memory.peak_bytes)
    return "out of memory" if cost.failures.get("memory", "").startswith("out of memory") else "-"


def _spread(found: Spread) -> str:
    return f"{found.median * 1e3:.3g} [{found.p10 * 1e3:.3g}, {found.p90 * 1e3:.3g}]"


def _ratio(found: Spread | None) -> str:
    if found is None:
        return "-"
    return f"{found.median:.2f} [{found.p10:.2f}, {found.p90:.2f}]"


def _flat(value: Mapping[str, Any], *, prefix: str) -> list[tuple[str, Any]]:
    lines: list[tuple[str, Any]] = []
    for key, item in value.items():
        lines += _flat(item, prefix=f"{prefix}{key}.") if isinstance(item, Mapping) else [(f"{prefix}{key}", item)]
    return lines
