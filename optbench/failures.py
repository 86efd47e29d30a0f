"""Every trial that came to a bad end: how, at which step, why, and where more is to be read."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from optbench.contest import Contest
from optbench.gathering import Gathered
from optbench.measurement import Status
from optbench.sheet import Sheet
from optbench.sheets import Line, sheet
from optbench.tables import Row

FAILED = [status.value for status in Status if status.failed]
_REASONS = {
    Status.DIVERGED: "the loss was not finite, or above divergence.max_loss",
    Status.TIMED_OUT: "it took longer than limits allow",
    Status.OUT_OF_MEMORY: "it needed more memory than there is",
}


def failures(gathered: Gathered, contests: Sequence[Contest]) -> Sheet | None:
    """A line for each failed trial, by task and optimizer; None where there is none."""
    index = gathered.index
    failed = index[index["status"].isin(FAILED)]
    if failed.empty:
        return None
    row_of = {trial_id: row for contest in contests for row in contest.rows for trial_id in row.ids}
    records = [record for record in failed.to_dict("records") if record["id"] in row_of]
    records.sort(key=lambda record: (record["task"], record["optimizer"], record["setting"], record["seed"]))
    lines = [_line(record, row_of[record["id"]], gathered=gathered) for record in records]
    notes = [
        f"{len(records)} of {len(index)} trials. A traceback stands in the trial's own file, what it printed in its "
        "log. `--rerun failed` with the command of the sweep runs them again."
    ]
    return sheet(lines, name="failures", title="failures", notes=notes)


def _line(record: dict[Any, Any], row: Row, *, gathered: Gathered) -> Line:
    store = gathered.store_of[record["id"]]
    log = store.log(record["id"])
    told = [_known(record.get("diverged_at_step")), _known(record.get("num_steps"))]
    step = next((int(value) for value in told if value is not None), None)
    reason = _known(record.get("reason")) or _REASONS.get(Status(record["status"]), "")
    numbers = {
        "task": row.task,
        "optimizer": row.optimizer,
        "setting": row.setting_text,
        "seed": int(record["seed"]),
        "status": record["status"],
        "step": step,
        "last_train_loss": _last_loss(record),
        "reason": " ".join(str(reason).split("\n")[0].split()),
        "file": str(log if log.is_file() else store.path(record["id"])),
    }
    words = {key.replace("_", " "): "-" if value in (None, "") else str(value) for key, value in numbers.items()}
    return Line(words=words, keys={key.replace("_", " "): value for key, value in numbers.items()}, numbers=numbers)


def _last_loss(record: dict[Any, Any]) -> float | None:
    """The last one that was good; to six digits."""
    before = _known(record.get("last_train_loss_before"))
    if isinstance(before, (int, float)):
        return float(f"{before:.6g}")
    return None


def _known(value: Any) -> Any:
    return None if value is None or (isinstance(value, float) and pd.isna(value)) else value
