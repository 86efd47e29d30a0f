"""Checkpoints: a trial that was stopped goes on where it was, along the same path.

A checkpoint is one file, `checkpoints/<id>.<SHA-256 of the file>.pt`, flushed to the disk under another name and then
renamed; one whose content is not that of its name is no checkpoint. It holds the trained parameters and the
buffers, the optimizer's state, the random number generators, where the loop was, and the curve so far. It is read by
`torch.load(weights_only=True)`, and deleted when the trial's result is stored.
"""

import hashlib
import os
import pickle  # for the name of its error alone
import random
import time
import uuid
import warnings
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from optbench import __version__
from optbench.component import Limit
from optbench.leftovers import CHECKPOINTS, checkpoints, forget
from optbench.machine import commit
from optbench.measurement import Measurement
from optbench.trial import Trial

# Of an optimizer with one of these, a state that was stored does not lead on along the same path.
CANNOT_RESUME = (Limit.STATE_DICT, Limit.WEIGHTS_ONLY_LOAD)


class Checkpoints:
    """The checkpoints of one trial.

    Args:
        folder: of the sweep.
        trial: the trial.
        every_seconds: between two checkpoints, on a monotonic clock; None makes none but at preemption.
    """

    def __init__(self, folder: Path, trial: Trial, *, every_seconds: float | None) -> None:
        self._folder = folder
        self._trial_id = trial.id
        self._every_seconds = every_seconds
        self._last = time.monotonic()
        self.is_possible = not any(limit in trial.optimizer.limits for limit in CANNOT_RESUME)

    @property
    def is_due(self) -> bool:
        """Whether it is time for the next one."""
        if self._every_seconds is None or not self.is_possible:
            return False
        return time.monotonic() - self._last >= self._every_seconds

    def save(self, state: Mapping[str, Any]) -> None:
        """Keep this state, in place of an earlier one; nothing where the optimizer's state cannot be kept.

        Raises:
            OSError: the disk is full or cannot be written to; an earlier checkpoint is kept.
        """
        if not self.is_possible:
            return
        self._last = time.monotonic()
        temporary = self._folder / "tmp" / f"{self._trial_id}.{uuid.uuid4().hex}"
        temporary.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as file:
                try:
                    torch.save(dict(state), file)
                except RuntimeError as error:  # torch's word for a disk that is full
                    raise OSError(str(error).partition("\n")[0]) from error
                file.flush()
                os.fsync(file.fileno())
            earlier = checkpoints(self._folder, self._trial_id)
            path = self._folder / CHECKPOINTS / f"{self._trial_id}.{_hash(temporary)}.pt"
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        for other in earlier:
            if other != path:
                other.unlink(missing_ok=True)

    def load(self) -> dict[str, Any] | None:
        """The state that was kept last; None where there is none that is whole."""
        if not self.is_possible:
            return None
        for path in sorted(checkpoints(self._folder, self._trial_id), key=_modified_ns, reverse=True):
            with suppress(OSError, RuntimeError, pickle.UnpicklingError):
                if path.name == f"{self._trial_id}.{_hash(path)}.pt":
                    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
                    return state
        return None

    def delete(self) -> None:
        """Keep none any more: the trial has a result, or starts from its beginning."""
        forget(self._folder, self._trial_id)


class Keeper:
    """Ties the checkpoints of a trial to what is being trained.

    Args:
        checkpoints: where they are kept.
        model: under training.
        optimizer: of it.
        curve: the measurements so far; put back by `resume`, and read at every checkpoint.

    Attributes:
        resumed: what the loop had saved, after `resume` found it.
    """

    def __init__(
        self,
        checkpoints: Checkpoints,
        *,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        curve: list[Measurement],
    ) -> None:
        self._checkpoints = checkpoints
        self._model = model
        self._optimizer = optimizer
        self._curve = curve
        self.resumed: Mapping[str, Any] | None = None

    @property
    def is_due(self) -> bool:
        """Whether it is time for the next checkpoint."""
        return self._checkpoints.is_due

    def save(self, loop: Mapping[str, Any]) -> None:
        """Keep the trained weights, the buffers, the optimizer's state, the random number generators and the curve.

        What is frozen is left out: a task builds it from its seed.

        Args:
            loop: what the training loop has to know to go on from here.

        A disk that is full costs the checkpoint, not the trial; a warning says so.
        """
        if not self._checkpoints.is_possible:
            return
        kept = {name for name, parameter in self._model.named_parameters() if parameter.requires_grad}
        kept |= {name for name, _ in self._model.named_buffers()}
        numpy_kind, numpy_keys, *numpy_rest = np.random.get_state(legacy=True)
        state = {
            **loop,
            "made_by": _maker(),
            "model": {name: value for name, value in self._model.state_dict().items() if name in kept},
            "optimizer": self._optimizer.state_dict(),
            "random": {
                "cpu": torch.get_rng_state(),
                "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],
                "python": random.getstate(),
                "numpy": [numpy_kind, np.asarray(numpy_keys).tolist(), *numpy_rest],
            },
            "curve": [{**asdict(row), "metrics": dict(row.metrics)} for row in self._curve],
        }
        try:
            self._checkpoints.save(state)
        except OSError as error:
            warnings.warn(f"no checkpoint was kept at step {loop['step']}: {error}", stacklevel=2)

    def resume(self) -> None:
        """Bring model, optimizer and curve to the last checkpoint, where there is one.

        Raises:
            Exception: whatever an optimizer raises that does not take back its own state; nothing here is usable then.
        """
        state = self._checkpoints.load()
        if state is None or state["made_by"] != _maker():  # of two versions, nobody could say what the result is of
            return
        own = self._model.state_dict()
        with torch.no_grad():
            for name, value in state["model"].items():
                own[name].copy_(value)
        self._optimizer.load_state_dict(state["optimizer"])
        self._curve[:] = [Measurement(**row) for row in state["curve"]]
        self.resumed = state


def restore_random(state: Mapping[str, Any]) -> None:
    """Bring the random number generators to where they were."""
    saved: Mapping[str, Any] = state["random"]
    torch.set_rng_state(saved["cpu"])
    for index, generator in enumerate(saved["cuda"][: torch.cuda.device_count()]):
        torch.cuda.set_rng_state(generator, index)
    version, internal, gauss = saved["python"]
    random.setstate((version, tuple(internal), gauss))
    kind, keys, *rest = saved["numpy"]
    np.random.set_state((kind, np.array(keys, dtype=np.uint32), *rest))


def _maker() -> str:
    return f"optbench {__version__} {commit()} torch {torch.__version__}"


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _modified_ns(path: Path) -> int:
    with suppress(OSError):
        return path.stat().st_mtime_ns
    return 0
