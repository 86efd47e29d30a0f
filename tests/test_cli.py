"""The command as people type it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from optbench.cli import main

QUICK = ["task=quadratic", "budget.num_steps=20", "evaluation.every_num_steps=10", "executor=serial"]


def call(*arguments: str) -> int:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert isinstance(caught.value.code, int)
    return caught.value.code


def process(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "optbench", *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, **environment},
        check=False,
    )


def stored(results: Path) -> list[dict[str, object]]:
    return [json.loads(file.read_text()) for file in results.glob("*/trials/*.json")]


@pytest.mark.parametrize("spelling", [["sweep"], ["-m"], ["--multirun"]])
def test_a_sweep_can_be_spelt_in_hydras_way_too(spelling: list[str], tmp_path: Path) -> None:
    assert call(*spelling, *QUICK, "optimizer=sgd,adam", f"results={tmp_path}") == 0
    assert len(stored(tmp_path)) == 6


@pytest.mark.parametrize("spelling", [["run"], []])
def test_a_run_is_one_trial_with_one_seed(spelling: list[str], tmp_path: Path) -> None:
    assert call(*spelling, *QUICK, "seed=4", f"results={tmp_path}") == 0
    (record,) = stored(tmp_path)
    assert record["status"] == "completed"
    assert record["config"]["seed"] == 4  # type: ignore[index]


def test_a_record_has_the_fields_that_the_readme_lists(tmp_path: Path) -> None:
    call("run", *QUICK, f"results={tmp_path}")
    (record,) = stored(tmp_path)
    assert set(record) == {
        "schema", "id", "config", "status", "summary", "curve", "environment", "timing", "sha256",
    }  # fmt: skip
    assert set(record["curve"]) == {  # type: ignore[arg-type]
        *("step", "seconds", "lr", "gradient_evaluations", "train_loss", "test_loss", "update_rms", "grad_norm")
    }


def test_failed_trials_show_in_the_exit_code(tmp_path: Path) -> None:
    assert call("run", *QUICK, "optimizer=sgd", "optimizer.lr=10.0", f"results={tmp_path}") == 11


def test_a_mistake_is_one_message_without_a_traceback(tmp_path: Path) -> None:
    for mistake in ("optimzer=lion", "optimizer=lino", "optimizer.lr=abc"):
        result = process("sweep", mistake, cwd=tmp_path)
        assert result.returncode == 2
        assert result.stderr.startswith("optbench: ")
        assert "Traceback" not in result.stderr
        assert result.stdout == ""
    assert list(tmp_path.iterdir()) == []


def test_a_mistake_is_found_without_importing_torch(tmp_path: Path) -> None:
    script = (
        "import sys; from optbench.cli import main\n"
        "try: main(['sweep', 'optimizer.lrr=1'])\n"
        "except SystemExit: print(sorted({'torch', 'pandas', 'wandb', 'matplotlib'} & sys.modules.keys()))"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path, check=True)
    assert result.stdout.strip() == "[]"


def test_hydra_writes_nothing_of_its_own(tmp_path: Path) -> None:
    assert process("sweep", *QUICK, "seed=0", cwd=tmp_path).returncode == 0
    assert [path.name for path in tmp_path.iterdir()] == ["results"]
    assert sorted(path.name for path in (tmp_path / "results" / "default").iterdir()) == [
        "index", "leases", "plan.json", "table.csv", "table.md", "tmp", "trials",
    ]  # fmt: skip


def test_cfg_shows_the_config_of_an_override(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("run", "--cfg", "job", "optimizer=lion", "optimizer.lr=0.5") == 0
    output = capsys.readouterr().out
    assert "lion_pytorch.Lion" in output
    assert "lr: 0.5" in output


@pytest.mark.parametrize("option", [["--cfg", "job"], ["--help"]])
def test_cfg_and_help_explain_a_mistake_as_well(option: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert call(*option, "optimizer=lino") == 2
    assert "Did you mean 'lion'" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], ["sweep", "--help"], []])
def test_help_lists_the_commands_and_the_groups(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert call(*arguments) == 0
    output = capsys.readouterr().out
    assert "optbench sweep  key=value,value" in output
    assert "optimizer: adadelta, adafactor, " in output


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("optbench optimizer=ada", "optimizer=adam"),
        ("optbench sweep optimizer=ada", "optimizer=adam"),
        ("optbench plan optimizer=ada", "optimizer=adam"),
    ],
)
def test_the_shell_can_complete_options(line: str, expected: str, tmp_path: Path) -> None:
    result = process("-sc", "query=bash", cwd=tmp_path, COMP_LINE=line, COMP_POINT=str(len(line)))
    assert expected in result.stdout.split()


def test_an_unknown_command_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("swep", "optimizer=lion") == 2
    assert "Did you mean 'sweep'" in capsys.readouterr().err


def test_the_report_makes_the_table_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call("sweep", *QUICK, "optimizer=sgd,adam", f"results={tmp_path}")
    table = capsys.readouterr().out.partition("quadratic (default)")[2]
    assert call("report", str(tmp_path)) == 0
    again, _, rest = capsys.readouterr().out.partition("quadratic (default)")[2].partition("On quadratic")
    assert again == table
    assert str(tmp_path / "report" / "report.html") in rest
    assert call("report", f"results={tmp_path}") == 0
    assert call("report", str(tmp_path / "default")) == 0


def test_the_report_draws_a_picture_of_the_table(tmp_path: Path) -> None:
    call("run", *QUICK, f"results={tmp_path}")
    assert call("report", str(tmp_path), "--svg", str(tmp_path / "table.svg")) == 0
    assert "<svg" in (tmp_path / "table.svg").read_text()


def test_a_report_on_nothing_says_how_to_get_something(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("report", str(tmp_path)) == 2
    assert "optbench sweep" in capsys.readouterr().err


@pytest.mark.parametrize("group", ["optimizer", "optimizers", "tasks", "schedule"])
def test_list_shows_each_option_with_its_description(group: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("list", group) == 0
    output = capsys.readouterr().out
    assert {"optimizer": "lion_pytorch", "tasks": "MNIST", "schedule": "cosine"}.get(group, "Lion") in output


def test_an_optimizer_of_ones_own_costs_one_file_and_no_code(tmp_path: Path) -> None:
    (tmp_path / "conf" / "optimizer").mkdir(parents=True)
    (tmp_path / "conf" / "optimizer" / "mine.yaml").write_text(
        "name: mine\n_target_: torch.optim.RAdam\nlr: 0.01\nbetas: [0.9, 0.999]\n"
    )
    results = tmp_path / "results"
    overrides = ["--config-dir", str(tmp_path / "conf"), *QUICK, "optimizer=mine,sgd", f"results={results}"]
    assert call("sweep", *overrides, "optimizer.lr=0.01,0.02", "seed=0") == 0
    assert len(stored(results)) == 4


def test_a_task_of_ones_own_costs_one_class_and_one_file(tmp_path: Path) -> None:
    (tmp_path / "my_lab.py").write_text(
        "import torch\n"
        "class Line:\n"
        "    def __init__(self, *, slope, seed, device):\n"
        "        self.model = torch.nn.Linear(1, 1).to(device)\n"
        "        self.x = torch.linspace(-1, 1, 20, device=device)[:, None]\n"
        "        self.y = slope * self.x\n"
        "    def batches(self):\n"
        "        while True:\n"
        "            yield self.x, self.y\n"
        "    def loss(self, batch):\n"
        "        x, y = batch\n"
        "        return ((self.model(x) - y) ** 2).mean()\n"
        "    @torch.no_grad()\n"
        "    def evaluate(self):\n"
        "        return {'test_loss': self.loss((self.x, self.y)).item()}\n"
    )
    (tmp_path / "conf" / "task").mkdir(parents=True)
    (tmp_path / "conf" / "task" / "line.yaml").write_text(
        "name: line\n_target_: my_lab.Line\nslope: 3.0\nnum_steps: 100\nevaluate_every_num_steps: 10\n"
        "metrics: {test_loss: min}\n"
    )
    arguments = ["run", "--config-dir", "conf", "task=line", "optimizer=adam", "optimizer.lr=0.1", "cost.seconds=null"]
    refused = process(*arguments, cwd=tmp_path, PYTHONPATH=str(tmp_path))
    assert refused.returncode == 2
    assert "add allow=my_lab to the command" in refused.stderr, "a file cannot allow itself to be called"
    result = process(*arguments, "allow=my_lab", cwd=tmp_path, PYTHONPATH=str(tmp_path))
    assert result.returncode == 0, result.stderr
    (record,) = stored(tmp_path / "results")
    assert record["summary"]["test_loss"] < 0.1  # type: ignore[index]


def test_an_interrupted_sweep_keeps_what_had_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from optbench.executors import attempt

    calls = []

    def run(trial: object, **options: object) -> object:
        calls.append(trial)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return original(trial, **options)  # type: ignore[arg-type]

    original = attempt.run
    monkeypatch.setattr(attempt, "run", run)
    assert call("sweep", *QUICK, f"results={tmp_path}") == 130
    assert "the same command runs the rest" in capsys.readouterr().err
    assert len(stored(tmp_path)) == 1
    monkeypatch.undo()
    assert call("report", str(tmp_path)) == 0
    assert "2 planned trial(s) have no result yet" in capsys.readouterr().out
    assert call("sweep", *QUICK, f"results={tmp_path}") == 0
    assert "2 trials to run, 1 stored already" in capsys.readouterr().out


def test_a_primary_config_of_ones_own_is_used(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("defaults: [config, _self_]\nbudget: {num_steps: 30}\n")
    arguments = ["--config-dir", str(tmp_path), "--config-name", "mine", "task=quadratic", f"results={tmp_path / 'r'}"]
    arguments.append("executor=serial")
    assert call("run", *arguments) == 0
    (record,) = stored(tmp_path / "r")
    assert record["config"]["budget"]["num_steps"] == 30  # type: ignore[index]


# plan, status and what is run again

FIXED = [*QUICK, "sweep=once"]


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_a_plan_trains_nothing_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = tmp_path / "results"
    assert call("plan", *QUICK, "optimizer=sgd,adam", "optimizer.lr=0.001,1e-3", f"results={results}") == 0
    output = capsys.readouterr().out
    assert f"{results}/default: 6 trials to run, 0 done, 0 failed, 6 duplicates merged." in output
    assert "optbench cost task=quadratic optimizer=sgd" in output, "how to know more"
    assert not results.exists()


def test_a_plan_counts_what_is_stored_and_predicts_from_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = f"results={tmp_path}"
    for lr in ("0.01", "10.0"):
        call("run", *QUICK, "optimizer=sgd", f"optimizer.lr={lr}", results)
    before = files(tmp_path)
    capsys.readouterr()
    assert call("plan", *FIXED, "optimizer=sgd,adam", "optimizer.lr=0.01,10.0,0.02", results) == 0
    output = capsys.readouterr().out
    assert "4 trials to run, 1 done, 1 failed (--rerun failed runs them again)." in output
    rows = {line.split()[1]: line.split() for line in output.splitlines() if line.startswith("  quadratic ")}
    assert rows["sgd"][2:6] == ["3", "1", "1", "1"]
    assert rows["sgd"][7] == "s"
    assert rows["sgd"][-1] == "yes"
    assert rows["adam"][2:8] == ["3", "3", "0", "0", "-", "-"]
    assert rows["adam"][8] == "-", "no peak was measured"
    assert rows["adam"][-2:] == ["KiB", "yes"], "but one is predicted"
    assert "Predicted wall-clock of training: at least" in output
    assert files(tmp_path) == before


def test_a_plan_without_anything_to_run_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call("run", *QUICK, f"results={tmp_path}")
    capsys.readouterr()
    assert call("plan", *FIXED, f"results={tmp_path}") == 0
    assert "nothing to run, 1 done, 0 failed." in capsys.readouterr().out


def test_a_plan_names_what_would_not_fit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from optbench import machine

    call("run", *QUICK, "optimizer=sgd", f"results={tmp_path}")
    capsys.readouterr()
    for available, words in ((1, "quadratic sgd: would not fit"), (2500, "only 1 trial at a time would fit")):
        monkeypatch.setattr(machine, "available_bytes", lambda available=available: available)
        call("plan", *QUICK, "optimizer=sgd", "executor=local", "executor.num_slots=2", f"results={tmp_path}")
        assert words in capsys.readouterr().out


def test_a_plan_of_a_search_by_optuna_says_that_its_settings_are_not_known(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("plan", *QUICK, "sweep=optuna", "n=7", "optimizer=sgd,adam", f"results={tmp_path}") == 0
    output = capsys.readouterr().out
    assert "14 trials to run" in output
    assert "shows as Optuna chooses them" in output


def test_a_plan_for_other_machines_does_not_tell_what_they_have(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call("run", *QUICK, "optimizer=sgd", f"results={tmp_path}")
    capsys.readouterr()
    assert call("plan", *QUICK, "optimizer=sgd", "executor=slurm", f"results={tmp_path}") == 0
    output = capsys.readouterr().out
    assert "shared by as many trials at a time as executor=slurm finds room for" in output
    assert "Memory" not in output


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optimizer=lino", "Did you mean 'lion'"),
        ("sweep.name=a/b", "a plain folder name"),
        ("results=a,b", "one value"),
        ("seed=-1", "0 or above"),
    ],
)
def test_a_plan_finds_the_mistakes_of_a_sweep(
    override: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call("plan", *QUICK, override) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["plan", *QUICK], ["status", "results"]])
def test_plan_and_status_wait_for_neither_torch_nor_pandas(arguments: list[str], tmp_path: Path) -> None:
    call("run", *QUICK, f"results={tmp_path / 'results'}")
    script = (
        "import sys; from optbench.cli import main\n"
        f"try: main({arguments})\n"
        "except SystemExit as e: print(e.code, sorted({'torch', 'pandas', 'optuna', 'ray'} & sys.modules.keys()))"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path, check=True)
    assert result.stdout.splitlines()[-1] == "0 []"


def test_a_plan_refuses_what_a_file_may_not_call(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "optimizer").mkdir()
    (tmp_path / "optimizer" / "mine.yaml").write_text("name: mine\n_target_: my_lab.optim.Mine\nlr: 0.01\n")
    arguments = ["plan", "--config-dir", str(tmp_path), *QUICK, "optimizer=mine", f"results={tmp_path / 'results'}"]
    assert call(*arguments) == 2
    assert "add allow=my_lab to the command" in capsys.readouterr().err
    assert call(*arguments, "allow=my_lab") == 0, "nothing of it is imported"


def test_status_ends_with_11_until_all_is_stored_and_well(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("run", *QUICK, "optimizer=sgd", "optimizer.lr=10.0", f"results={tmp_path}") == 11
    assert call("status", str(tmp_path)) == 11
    assert "1 planned, 0 done, 1 failed." in capsys.readouterr().out
    assert call("run", *QUICK, f"results={tmp_path}") == 0
    assert call("status", f"results={tmp_path}") == 0
    capsys.readouterr()
    assert call("status", "--json", str(tmp_path / "default")) == 0
    assert json.loads(capsys.readouterr().out)["sweeps"][0]["is_complete"]


def test_the_status_of_nothing_says_how_to_get_something(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("status", str(tmp_path)) == 2
    assert "optbench sweep" in capsys.readouterr().err


@pytest.mark.parametrize(
    "options",
    [
        ["--rerun", "failed"],
        pytest.param(["--rerun=stale,diverged"], marks=pytest.mark.verify),
        pytest.param(["--rerun", "failed,stale"], marks=pytest.mark.verify),
    ],
)
def test_rerun_is_the_override(options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call("run", *QUICK, "optimizer=sgd", "optimizer.lr=10.0", f"results={tmp_path}")
    capsys.readouterr()
    call("plan", *FIXED, "optimizer=sgd", "optimizer.lr=10.0", f"results={tmp_path}", *options)
    assert "1 trial to run, 0 done, 0 failed." in capsys.readouterr().out


def test_rerun_can_be_said_several_times(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for lr in ("10.0", "0.01"):
        call("run", *QUICK, "optimizer=sgd", f"optimizer.lr={lr}", f"results={tmp_path}")
    capsys.readouterr()
    arguments = [*FIXED, "optimizer=sgd", "optimizer.lr=10.0,0.01", f"results={tmp_path}"]
    call("plan", "--rerun", "failed", *arguments, "--rerun=completed")
    assert "2 trials to run" in capsys.readouterr().out
    call("plan", "--rerun", "failed", *arguments)
    assert "1 trial to run, 1 done" in capsys.readouterr().out


def test_what_is_run_again_takes_the_place_of_what_was_stored(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [*QUICK, "optimizer=sgd", "optimizer.lr=10.0", f"results={tmp_path}"]
    call("run", *arguments)
    (before,) = tmp_path.glob("*/trials/*.json")
    modified = before.stat().st_mtime_ns
    assert call("run", *arguments, "--rerun", "failed") == 11
    assert before.stat().st_mtime_ns > modified
    assert len(list(tmp_path.glob("*/superseded/*.json"))) == 1
    capsys.readouterr()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--rerun", "faild"], "Did you mean 'failed'"),
        (["--rerun"], "Allowed: completed, crashed"),
        (["--rerun", "failed", "sweep.rerun=[stale]"], "Leave one of them out"),
        (["sweep.rerun=[fialed]"], "Did you mean 'failed'"),
    ],
)
def test_a_mistake_in_rerun_is_named(
    options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("plan", *QUICK, f"results={tmp_path}", *options) == 2
    assert message in capsys.readouterr().err
