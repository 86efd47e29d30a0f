"""What a trial keeps beside its result while it has none; known to those, too, who do without torch."""

from pathlib import Path

CHECKPOINTS = "checkpoints"


def checkpoints(folder: Path, trial_id: str) -> list[Path]:
    """The checkpoints of a trial, in the folder of its sweep."""
    return list((folder / CHECKPOINTS).glob(f"{trial_id}.*.pt"))


def forget(folder: Path, trial_id: str) -> None:
    """Delete the checkpoints of a trial, and those that it was killed in writing; whoever calls has its lease."""
    for path in (*checkpoints(folder, trial_id), *(folder / "tmp").glob(f"{trial_id}.*")):
        path.unlink(missing_ok=True)
