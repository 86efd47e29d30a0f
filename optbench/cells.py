"""A table's content: in words for people, in numbers for pandas, and the notes that go with it."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pandas as pd

from optbench.measurement import Status
from optbench.stats import COVERAGE, Estimate
from optbench.tables import Row
from optbench.units import in_bytes, in_milliseconds, in_percent


def words(table: Sequence[Row]) -> pd.DataFrame:
    """The table in words, for people: columns without any content are left out."""
    with_target = _with_target(table)
    metrics = metrics_of(table)
    timed = next((row.cost.time.reference for row in table if row.cost and row.cost.time), None)
    lines = []
    for row in table:
        line = {
            "": {"best": "★", "tie": "=", "": ""}[row.mark],
            "optimizer": row.optimizer,
            "setting": row.setting_text,
            "seeds": f"{row.num_succeeded}/{row.num_trials}" if row.failures else str(row.num_trials),
        }
        for name in metrics:
            line[name.replace("_", " ")] = estimated(row.metrics.get(name), row, percent=is_share(name))
        if with_target:
            line["to target"] = to_target(row)
        line["step (ms)"] = in_milliseconds(row.step_seconds)
        if timed:
            time = row.cost.time if row.cost else None
            line[f"step / {timed}"] = f"{time.ratio.median:.2f}" if time and time.ratio else "-"
            line["optimizer's share"] = in_percent(time.optimizer_share) if time else "-"
        state = row.state_bytes_per_parameter
        line["state (B/param)"] = f"{state:.2f}" if state is not None else "-"
        line["peak"] = in_bytes(row.peak_bytes)
        line["failed"] = ", ".join(f"{count} {status}" for status, count in row.failures.items()) or "-"
        lines.append(line)
    return pd.DataFrame(lines)


def numbers(table: Sequence[Row]) -> pd.DataFrame:
    """The table in numbers, for pandas and CSV: an estimate `x` takes four columns.

    They are its mean `x`, `x_low`, `x_high` and `x_num_seeds`, over how many seeds it is.
    """
    with_target = _with_target(table)
    metrics = metrics_of(table)
    return pd.DataFrame([figures(row, metrics=metrics, with_target=with_target) for row in table])


def notes(table: Sequence[Row], index: pd.DataFrame) -> list[str]:
    """What the table says and on what, a sentence each."""
    found = []
    if any(row.mark for row in table):
        by = "steps to the target" if _with_target(table) else "the task's first metric"
        found.append(
            f"★ best by {by}; = not told apart from it by the seeds they share, each by itself (paired t, 95 %)."
        )
    nums_seeds = {found.num_values for row in table for found in row.metrics.values()}
    if 1 in nums_seeds:
        found.append("A setting with one seed has no interval: seed noise alone may explain its place.")
    if few := sorted(nums_seeds & COVERAGE.keys()):
        held = ", ".join(f"over {num_seeds} seeds {COVERAGE[num_seeds] * 100:.0f} % of the time" for num_seeds in few)
        found.append(f"Few seeds make intervals too narrow: they hold the true mean {held}, not 95 %.")
    if any(row.failures and row.num_succeeded for row in table):
        found.append("Where trials failed, the means are over the others, and the setting ranks below.")
    found += _tuning_budgets(table)
    found += _where_costs_are_from(table, index)
    return found + _low_bit_shares(index) + _warnings(index)


def _tuning_budgets(table: Sequence[Row]) -> list[str]:
    """How many settings of each optimizer were tried: who tries more finds better ones by chance alone."""
    lines = []
    for task in dict.fromkeys(row.task for row in table):
        counts = Counter(row.optimizer for row in table if row.task == task)
        if len(counts) < 2 or set(counts.values()) == {1}:
            continue
        where = f" on {task}" if len({row.task for row in table}) > 1 else ""
        if len(set(counts.values())) == 1:
            lines.append(f"Tuning budget{where}: {next(iter(counts.values()))} settings of each optimizer.")
        else:
            listed = ", ".join(f"{name} {count}" for name, count in counts.items())
            lines.append(f"Tuning budgets differ{where}, and more settings find better ones by chance alone: {listed}.")
    return lines


def _where_costs_are_from(table: Sequence[Row], index: pd.DataFrame) -> list[str]:
    """On what times and peaks were measured, and how."""
    if "device_type" not in index:
        return []
    found = []
    apart = [row for row in table if row.cost is not None and row.cost.time is not None]
    if apart:
        devices = sorted({str(row.cost.environment.get("device")) for row in apart if row.cost})
        reference = apart[0].cost.time.reference if apart[0].cost and apart[0].cost.time else ""
        found.append(
            f"step, step / {reference}, optimizer's share: medians of blocks of steps, measured apart from trials on "
            f"{', '.join(devices)}, blocks of {reference} between them. `optbench cost` shows more."
        )
        found += [
            f"{row.optimizer}: its step was measured while the device was busy ({'; '.join(row.cost.contended)})."
            for row in apart
            if row.cost is not None and row.cost.contended
        ]
    if len(apart) < len(table):
        devices = sorted({str(device) for device in index["device"].dropna()})
        threads = sorted({int(count) for count in index["num_threads"].dropna()})
        most = max(map(int, index["trials_at_a_time"].dropna()), default=1) if "trials_at_a_time" in index else 1
        ran = "as the trials ran" + (f", up to {most} at a time, which slow each other down" if most > 1 else "")
        which = f"step of {', '.join(_without_time(table))}" if apart else "step"
        found.append(
            f"{which}: median seconds per training step, evaluation excluded, on {', '.join(devices)} "
            f"({', '.join(map(str, threads))} thread(s)), {ran}."
        )
    counted = {row.cost.memory.counted for row in table if row.cost is not None and row.cost.memory is not None}
    peaks = {"tensors": "tensor bytes of a training step", "allocated": "bytes allocated on the GPU in a training step"}
    if counted:
        found.append(f"peak: {' or '.join(peaks[kind] for kind in sorted(counted))}, data set excluded.")
    elif any(row.peak_bytes is not None for row in table):
        found.append("peak: as the trials ran, data set excluded.")
    return found


def _without_time(table: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(row.optimizer for row in table if row.cost is None or row.cost.time is None))


def _low_bit_shares(index: pd.DataFrame) -> list[str]:
    """How much of an optimizer's state really is in few bits, where that is a part of it."""
    if "low_bit_share" not in index:
        return []
    partly = index[(index["low_bit_share"] > 0.0) & (index["low_bit_share"] < 1.0)]
    shares = dict.fromkeys(
        f"{optimizer} on {task}: state in 8 bits or fewer for {share * 100:.1f} % of the parameters, "
        "the other tensors keep more."
        for optimizer, task, share in zip(partly["optimizer"], partly["task"], partly["low_bit_share"], strict=True)
    )
    return list(shares)


def _warnings(index: pd.DataFrame) -> list[str]:
    """What libraries warned of while the trials ran, once for each optimizer."""
    if "warnings" not in index:
        return []
    warned = index[index["warnings"].notna()]
    return list(
        dict.fromkeys(
            f"{optimizer}: {' '.join(line.split())}"
            for optimizer, text in zip(warned["optimizer"], warned["warnings"], strict=True)
            for line in text.splitlines()
        )
    )


def metrics_of(table: Sequence[Row]) -> list[str]:
    """All metrics of a table in the order of its columns."""
    order = {"train_loss": 0, "test_loss": 1}
    return sorted(dict.fromkeys(name for row in table for name in row.metrics), key=lambda name: order.get(name, 2))


def _with_target(table: Sequence[Row]) -> bool:
    return any(row.num_reached is not None for row in table)


def figures(row: Row, *, metrics: Sequence[str], with_target: bool) -> dict[str, Any]:
    """One row of `numbers`, with the columns of these metrics and, where asked for, of the target."""
    line: dict[str, Any] = {
        "task": row.task,
        "optimizer": row.optimizer,
        "setting": row.setting_text,
        "mark": row.mark,
        "num_trials": row.num_trials,
        "num_succeeded": row.num_succeeded,
        **{f"num_{status}": row.failures.get(status, 0) for status in Status if not status.succeeded},
    }
    estimates = {name: row.metrics.get(name) for name in metrics}
    if with_target:
        line["num_reached"] = row.num_reached
        estimates |= {"steps_to_target": row.steps_to_target, "seconds_to_target": row.seconds_to_target}
    for name, found in estimates.items():
        line[name] = found.mean if found else None
        line[f"{name}_low"] = found.low if found else None
        line[f"{name}_high"] = found.high if found else None
        line[f"{name}_num_seeds"] = found.num_values if found else 0
    for name in ("step_seconds", "state_bytes_per_parameter", "peak_bytes"):
        line[name] = getattr(row, name)
    cost = row.cost
    line["predicted_peak_bytes"] = cost.predicted.peak_bytes if cost and cost.predicted else None
    line["step_ratio"] = cost.time.ratio.median if cost and cost.time and cost.time.ratio else None
    line["optimizer_share"] = cost.time.optimizer_share if cost and cost.time else None
    line["is_contended"] = None if cost is None or cost.contended is None else bool(cost.contended)
    return line


def is_share(metric: str) -> bool:
    """Whether a metric is a part of 1, which people read in percent."""
    return "accuracy" in metric


def estimated(found: Estimate | None, row: Row, *, percent: bool) -> str:
    """A mean with its interval, and over how many trials where that is not over all that succeeded."""
    if found is None:
        return "-"
    scale, digits, bounds, unit = (100.0, ".2f", ".1f", " %") if percent else (1.0, ".4g", ".4g", "")
    text = f"{found.mean * scale:{digits}}{unit}"
    if found.num_values < row.num_succeeded:
        text += f" ({found.num_values}/{row.num_trials})"
    if found.low is not None and found.high is not None:
        text += f" [{found.low * scale:{bounds}}, {found.high * scale:{bounds}}]"
    return text


def to_target(row: Row) -> str:
    """Steps and seconds to the target, and how many trials got there."""
    if row.num_reached is None:
        return "-"
    reached = f"{row.num_reached}/{row.num_trials}"
    if row.steps_to_target is None or row.seconds_to_target is None:
        return f"never ({reached})"
    return f"{row.steps_to_target.mean:.0f} steps, {row.seconds_to_target.mean:.3g} s ({reached})"
