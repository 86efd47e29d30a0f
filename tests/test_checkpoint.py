"""A trial that was stopped goes on where it was, along the same path."""

import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from optbench.catalogue import names
from optbench.checkpoint import CANNOT_RESUME, Checkpoints
from optbench.control import Control
from optbench.measurement import Measurement, Result, Status
from optbench.run import run
from optbench.trial import Trial
from tests.conftest import MakeTrial
from tests.test_executors import make

OPTIMIZERS = [name for name in names("optimizer") if name != "custom" and "/" not in name]
TRIAL = ("task=digits_mlp", "budget.num_steps=12", "evaluation.every_num_steps=5", "schedule=cosine")


def run_until(trial: Trial, folder: Path, *, step: int | None, every_seconds: float | None = None) -> Result:
    """Run a trial from its last checkpoint, and preempt it after a measurement at or after this step."""
    control = Control()

    def measured(measurement: Measurement) -> None:
        if step is not None and measurement.step >= step:
            control.stop = Status.PREEMPTED

    return run(
        trial,
        on_measurement=measured,
        control=control,
        checkpoints=Checkpoints(folder, trial, every_seconds=every_seconds),
    )


def figures(result: Result) -> dict[str, Any]:
    """All of a result that does not depend on the clock."""
    curve = {name: column for name, column in result.curve.items() if name != "seconds"}
    summary = {
        name: value for name, value in result.summary.items() if name not in ("seconds", "resumed_at_step", "warnings")
    }
    return {"status": result.status, "curve": curve, "summary": summary}


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")  # torch's compiler, about itself
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_preempted_trial_goes_on_to_the_very_same_losses(name: str, make_trial: MakeTrial, tmp_path: Path) -> None:
    trial = make_trial(*TRIAL, f"optimizer={name}", *(["schedule=constant"] if _has_no_rate(name, make_trial) else []))
    whole = run(trial, on_measurement=lambda _: None)
    assert whole.status is Status.COMPLETED
    stopped = run_until(trial, tmp_path, step=5)
    assert stopped.status is Status.PREEMPTED
    assert stopped.summary["num_steps"] == 5
    resumed = run_until(trial, tmp_path, step=None)
    assert figures(resumed) == figures(whole)
    can_resume = not any(limit in trial.optimizer.limits for limit in CANNOT_RESUME)
    assert resumed.summary.get("resumed_at_step") == (5 if can_resume else None)


def _has_no_rate(name: str, make_trial: MakeTrial) -> bool:
    return make_trial(f"optimizer={name}", "schedule=constant").optimizer.arguments.get("lr", 0.0) is None


@pytest.mark.parametrize("step", range(1, 12))
def test_a_trial_can_be_preempted_between_any_two_steps(step: int, make_trial: MakeTrial, tmp_path: Path) -> None:
    trial = make_trial(*TRIAL, "optimizer=adamw", "seed=3")
    whole = run(trial, on_measurement=lambda _: None)

    class Stopping(Control):
        def __setattr__(self, name: str, value: Any) -> None:
            super().__setattr__(name, value)
            if name == "step" and value == step:
                self.stop = Status.PREEMPTED

    checkpoints = Checkpoints(tmp_path, trial, every_seconds=None)
    stopped = run(trial, on_measurement=lambda _: None, control=Stopping(), checkpoints=checkpoints)
    assert (stopped.status, stopped.summary["num_steps"]) == (Status.PREEMPTED, step)
    resumed = run_until(trial, tmp_path, step=None)
    assert resumed.summary["resumed_at_step"] == step
    assert figures(resumed) == figures(whole)


def test_a_trial_that_is_preempted_again_and_again_takes_the_same_path(make_trial: MakeTrial, tmp_path: Path) -> None:
    trial = make_trial(*TRIAL, "optimizer=adam", "evaluation.every_num_steps=2")
    whole = run(trial, on_measurement=lambda _: None)
    for step in itertools.count(2, 2):
        result = run_until(trial, tmp_path, step=step)
        if result.status is not Status.PREEMPTED:
            break
    assert figures(result) == figures(whole)
    assert result.summary["resumed_at_step"] == 10


def test_checkpoints_are_kept_at_intervals_and_a_killed_trial_goes_on_from_the_last(
    make_trial: MakeTrial, tmp_path: Path
) -> None:
    trial = make_trial(*TRIAL, "optimizer=adamw")
    whole = run(trial, on_measurement=lambda _: None)

    class Killed(BaseException):
        pass

    def measured(measurement: Measurement) -> None:
        if measurement.step == 10:
            raise Killed

    with pytest.raises(Killed):
        run(
            trial,
            on_measurement=measured,
            checkpoints=Checkpoints(tmp_path, trial, every_seconds=0.0),
        )
    (kept,) = (tmp_path / "checkpoints").iterdir()
    assert not list((tmp_path / "tmp").iterdir())
    resumed = run_until(trial, tmp_path, step=None)
    assert resumed.summary["resumed_at_step"] == 5
    assert figures(resumed) == figures(whole)
    assert kept.name.startswith(trial.id)


@pytest.mark.parametrize("damage", [lambda c: c[:-1], lambda c: c[:100] + b"x" + c[101:], lambda _: b""])
def test_a_damaged_checkpoint_is_none(damage: Callable[[bytes], bytes], make_trial: MakeTrial, tmp_path: Path) -> None:
    trial = make_trial(*TRIAL, "optimizer=adamw")
    run_until(trial, tmp_path, step=5)
    (path,) = (tmp_path / "checkpoints").iterdir()
    path.write_bytes(damage(path.read_bytes()))
    resumed = run_until(trial, tmp_path, step=None)
    assert "resumed_at_step" not in resumed.summary
    assert figures(resumed) == figures(run(trial, on_measurement=lambda _: None))


def test_a_checkpoint_runs_no_code(make_trial: MakeTrial, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Payload:
        def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
            return print, ("code has run",)

    trial = make_trial(*TRIAL, "optimizer=adamw")
    checkpoints = Checkpoints(tmp_path, trial, every_seconds=None)
    checkpoints.save({"step": 1, "model": Payload()})
    assert checkpoints.load() is None
    assert "code has run" not in capsys.readouterr().out


def test_a_full_disk_costs_the_checkpoint_and_not_the_trial(
    make_trial: MakeTrial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    trial = make_trial(*TRIAL, "optimizer=adamw")
    monkeypatch.setattr("os.fsync", full)
    result = run(trial, on_measurement=lambda _: None, checkpoints=Checkpoints(tmp_path, trial, every_seconds=0.0))
    assert result.status is Status.COMPLETED
    assert "no checkpoint was kept at step 5: [Errno 28] No space left on device" in result.summary["warnings"]
    assert not list((tmp_path / "tmp").iterdir())


def test_all_generators_of_the_process_go_on_too(tmp_path: Path) -> None:
    trial = make("Draws", num_steps=12, every=5)
    whole = run(trial, on_measurement=lambda _: None)
    run_until(trial, tmp_path, step=5)
    resumed = run_until(trial, tmp_path, step=None)
    assert resumed.summary["resumed_at_step"] == 5
    assert figures(resumed) == figures(whole)


def test_a_checkpoint_of_another_version_is_none(
    make_trial: MakeTrial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = make_trial(*TRIAL, "optimizer=adamw")
    run_until(trial, tmp_path, step=5)
    monkeypatch.setattr("optbench.checkpoint.__version__", "99.0")
    assert "resumed_at_step" not in run_until(trial, tmp_path, step=None).summary


def test_the_clock_goes_on_too(make_trial: MakeTrial, tmp_path: Path) -> None:
    trial = make_trial(*TRIAL, "optimizer=adamw")
    stopped = run_until(trial, tmp_path, step=5)
    resumed = run_until(trial, tmp_path, step=None)
    before, after = stopped.timing["train_seconds"], resumed.timing["train_seconds"]
    assert 0.0 < before < after
    seconds = resumed.curve["seconds"]
    assert seconds == sorted(seconds)
    assert math.isclose(seconds[1], stopped.curve["seconds"][1])


def test_a_pruned_trial_has_no_figures_and_leaves_no_checkpoint(make_trial: MakeTrial, tmp_path: Path) -> None:
    trial = make_trial(*TRIAL, "optimizer=adamw")
    control = Control()
    control.stop = Status.PRUNED
    result = run(
        trial,
        on_measurement=lambda _: None,
        control=control,
        checkpoints=Checkpoints(tmp_path, trial, every_seconds=None),
    )
    assert result.status is Status.PRUNED
    assert result.summary["test_loss"] is None
    assert not (tmp_path / "checkpoints").exists()


def test_frozen_weights_are_not_kept(tmp_path: Path, make_trial: MakeTrial) -> None:
    from optbench.checkpoint import Keeper

    model = torch.nn.Sequential(torch.nn.Linear(1000, 1000), torch.nn.BatchNorm1d(1000), torch.nn.Linear(1000, 1))
    model[0].requires_grad_(False)
    trial = make_trial(*TRIAL, "optimizer=adamw")
    checkpoints = Checkpoints(tmp_path, trial, every_seconds=None)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    Keeper(checkpoints, model=model, optimizer=optimizer, curve=[]).save({"step": 1})
    state = checkpoints.load()
    assert state is not None
    assert set(state["model"]) == {
        "1.weight",
        "1.bias",
        "1.running_mean",
        "1.running_var",
        "1.num_batches_tracked",
        "2.weight",
        "2.bias",
    }
