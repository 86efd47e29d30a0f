"""What a task leaves behind beside its figures, such as pictures: `results/<sweep>/artifacts/<id>/`."""

import shutil
import uuid
import warnings
from pathlib import Path

from optbench.task import Task

ARTIFACTS = "artifacts"


def keep(task: Task, folder: Path) -> list[str]:
    """Have the task save what it leaves behind, in this folder, whole or not at all.

    What fails costs the files, not the result: a warning says so.

    Args:
        task: after its training.
        folder: which is made; an earlier one is replaced.

    Returns:
        The files, relative to the folder; none where the task leaves nothing.
    """
    if (save := getattr(task, "save", None)) is None:
        return []
    temporary = folder.with_name(f"{folder.name}.{uuid.uuid4().hex}.partial")
    try:
        temporary.mkdir(parents=True)
        save(temporary)
        names = sorted(str(path.relative_to(temporary)) for path in temporary.rglob("*") if path.is_file())
        if names:
            shutil.rmtree(folder, ignore_errors=True)
            temporary.replace(folder)
    except Exception as error:
        warnings.warn(f"the artifacts could not be saved: {type(error).__name__}: {error}", stacklevel=2)
        names = []
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return names
