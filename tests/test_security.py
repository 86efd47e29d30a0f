"""Secrets are refused and never stored, names never become paths, and nothing unpickles or runs what a file says."""

import ast
import os
import re
import subprocess
import sys
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from optbench import secrets
from optbench.catalogue import GROUPS, entries
from optbench.cli import main
from optbench.errors import UsageError

ROOT = Path(__file__).parent.parent
SOURCES = sorted(path for folder in ("optbench", "tasks") for path in (ROOT / folder).rglob("*.py"))

# None of these is a secret of anybody; put together here, so that no scanner takes this file for a leak.
WANDB_KEY = "0123456789abcdef" * 2 + "01234567"
SHAPES = {
    "wandb": WANDB_KEY,
    "wandb of a version": "wandb_v1_" + "aB3dE6" * 6,
    "wandb of a server": "local-" + WANDB_KEY,
    "hugging face": "hf_" + "aB3dE6gH9j" * 3 + "kL1m",
    "openai": "sk-" + "proj-" + "aB3dE6gH9j" * 3,
    "github": "ghp_" + "aB3dE6gH9j" * 3 + "kL1m",
    "github, of the newer kind": "github_pat_" + "aB3dE6gH9j" * 3,
    "gitlab": "glpat-" + "aB3dE6gH9j" * 2,
    "slack": "xoxb-" + "123456789012",
    "aws": "AKIA" + "ABCDEFGHIJKLMNOP",
    "google": "AIza" + "aB3dE6g" * 5,
    "web token": "eyJ" + "aB3dE6gH9j" + "." + "eyJ" + "aB3dE6gH9j" + ".aB3d",
    "private key": "-----BEGIN " + "OPENSSH PRIVATE KEY-----",
    "address with a password": "http://someone:" + "swordfish@proxy.example:3128",
}
SECRET_KEYS = [
    "logger.api_key",
    "logger.apiKey",
    "logger.apikey",
    "logger.API_KEY",
    "logger.wandb_api_key",
    "logger.WandbApiKey",
    "logger.wandbapikey",
    "optimizer.hub-token",
    "optimizer.hf_token",
    "optimizer.hfToken",
    "optimizer.HF_TOKEN",
    "optimizer.hftoken",
    "optimizer.token",
    "optimizer.mlflow_token",
    "data.access_token",
    "data.auth_tokens",
    "data.password",
    "data.db_passwd",
    "data.MyPassword",
    "data.passphrase",
    "task.secret",
    "task.client_secret",
    "task.secret_access_key",
    "task.aws_access_key_id",
    "task.credentials",
    "task.credentials.user",
    "task.private_key",
    "hydra.job.env_set.WANDB_API_KEY",
]
# Words of deep learning in which a secret's word is contained.
HARMLESS_KEYS = [
    "task.max_tokens",
    "task.num_tokens",
    "task.tokens",
    "task.tokens_per_batch",
    "task.token_dropout",
    "task.token_embedding",
    "task.token_mixing",
    "task.token_type_ids",
    "task.tokenizer",
    "task.tokenizer.name",
    "task.pretokenized",
    "task.pad_token",
    "task.bos_token",
    "task.eos_token_id",
    "task.decoder_start_token_id",
    "task.cls_token",
    "task.class_token",
    "task.mask_token",
    "task.distillation_token",
    "task.image_token_index",
    "task.loss_per_token",
    "task.register_tokens",
    "task.subtoken",
    "task.key_dim",
    "task.num_key_value_heads",
    "task.key_padding_mask",
    "task.author",
    "task.forward_pass",
    "task.passes",
    "task.bypass",
    "task.compass",
    "task.secretary_problem",
    "data.label_column",
    "optimizer.eps",
    "logger.entity",
]
VALUES = {
    "text": "swordfish-canary",
    "quoted": "'swordfish-canary'",
    "a list": "[swordfish-canary,b]",
    "a choice": "swordfish-canary,other",
    "a number": "123456789012345",
}


def refusal(*arguments: str) -> str:
    with pytest.raises(UsageError) as caught:
        secrets.check_overrides(arguments)
    return str(caught.value)


def nested(key: str, value: Any) -> dict[str, Any]:
    first, _, rest = key.partition(".")
    return {first: nested(rest, value) if rest else value}


@pytest.mark.parametrize("key", SECRET_KEYS)
@pytest.mark.parametrize("sign", ["", "+", "++"])
def test_a_key_that_names_a_secret_is_refused_and_its_value_not_repeated(key: str, sign: str) -> None:
    message = refusal("optimizer=adamw", f"{sign}{key}=swordfish-canary")
    assert "canary" not in message
    assert message.startswith(f"{key}: by its name this key holds a secret")
    assert "environment" in message
    with pytest.raises(UsageError, match=re.escape(key)) as caught:
        secrets.check_config(nested(key, "swordfish-canary"))
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES.keys())
def test_it_is_refused_whatever_its_value_is_like(value: str) -> None:
    message = refusal(f"logger.api_key={value}")
    assert "canary" not in message
    assert "12345" not in message


@pytest.mark.parametrize("value", ["null", "true", "false", "", "???"])
@pytest.mark.parametrize("key", ["logger.api_key", "data.use_auth_token", "task.token"])
def test_a_secrets_key_without_a_secret_in_it_is_none(key: str, value: str) -> None:
    secrets.check_overrides([f"{key}={value}", f"~{key}"])
    secrets.check_config(nested(key, {"null": None, "true": True, "false": False}.get(value, value)))


@pytest.mark.parametrize("key", HARMLESS_KEYS)
@pytest.mark.parametrize("value", [512, 0.1, "learned", "<|endoftext|>", "[MASK]", "gpt2", True, None])
def test_words_of_deep_learning_are_no_secrets(key: str, value: Any) -> None:
    secrets.check_overrides([f"{key}={value}"])
    secrets.check_config(nested(key, value))


@pytest.mark.parametrize("value", [3, 0.5, "<image>", "[CLS]"])
def test_a_token_that_is_a_number_or_a_mark_is_part_of_a_model(value: Any) -> None:
    secrets.check_overrides([f"task.token={value}"])
    secrets.check_config(nested("task.token", value))


@pytest.mark.parametrize("group", GROUPS)
def test_the_catalogue_holds_nothing_that_would_be_refused(group: str) -> None:
    for entry in entries(group):
        secrets.check_config({group: dict(entry.config)})


@pytest.mark.parametrize("value", SHAPES.values(), ids=SHAPES.keys())
@pytest.mark.parametrize("key", ["logger.entity", "optimizer.eps", "sweep.name", "logger.apikye"])
def test_a_value_with_the_shape_of_a_secret_is_refused_wherever_it_stands(key: str, value: str) -> None:
    message = refusal(f"{key}={value}")
    assert message.startswith(f"{key}: its value looks like a key, a token or a password")
    assert value not in message
    with pytest.raises(UsageError, match="looks like") as caught:
        secrets.check_config(nested(key, [f"{value}"]))
    assert value not in str(caught.value)


@pytest.mark.parametrize("value", SHAPES.values(), ids=SHAPES.keys())
def test_one_that_stands_where_a_verb_an_option_or_a_key_should_be_is_refused_too(value: str) -> None:
    for argument in (value, f"--config-dir={value}", f"+{value}"):
        assert value not in refusal("sweep", argument)


@pytest.mark.parametrize(
    "text",
    [
        "https://huggingface.co/datasets/ylecun/mnist",
        "git@github.com:someone/something.git",
        "sk-learn-digits-with-a-long-name",
        "hf_internal_testing_tiny_random_model",
        "task-with-a-long-name-of-100-parts",
        "a" * 64,
        "0123456789abcdef" * 4,
        "tag(log, interval(0.001, 0.1))",
        "${task.num_tokens}",
        "${oc.env:HOME}/data",
    ],
)
def test_other_long_texts_are_no_secrets(text: str) -> None:
    secrets.check_overrides([f"data.path={text}"])
    secrets.check_config(nested("data.path", text))


def test_a_commit_is_none_where_its_key_says_so() -> None:
    for key in ("data.revision", "data.model_revision", "task.commit", "task.sha1"):
        secrets.check_overrides([f"{key}={WANDB_KEY}"])
        secrets.check_config(nested(key, WANDB_KEY))


@pytest.mark.parametrize(
    "value", ["${oc.env:WANDB_API_KEY}", "a-${oc.env:MY_PASSWORD,none}", "${oc.decode:${oc.env:'HF_TOKEN'}}"]
)
def test_a_variable_whose_name_is_a_secrets_is_not_interpolated(value: str) -> None:
    assert "variable" in refusal(f"logger.entity={value}")
    with pytest.raises(UsageError, match="variable"):
        secrets.check_config(nested("logger.entity", value))


def test_what_such_a_variable_holds_is_refused_however_it_came_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_PASSWORD", "correct horse battery")
    monkeypatch.setenv("SHORT_SECRET", "digits_mlp")
    for value in ("correct horse battery", "-- correct horse battery --"):
        with pytest.raises(UsageError, match="variable") as caught:
            secrets.check_config(nested("task.note", value))
        assert "horse" not in str(caught.value)
        assert "horse" not in refusal(f"task.note={value}")
    secrets.check_config({"task": {"note": "task=digits_mlp_2"}})  # a word that also is part of another


def test_a_variable_that_names_a_file_is_no_secret(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path))
    secrets.check_config({"results": str(tmp_path)})


@pytest.mark.parametrize("line", ["+logger.extra={api_key: abc, b: 1}", "+logger={a:{hub_token:'abc'}}"])
def test_a_mapping_in_an_override_is_looked_into(line: str) -> None:
    assert "abc" not in refusal(line)


def test_a_checker_looks_at_each_config_and_at_what_they_share_once() -> None:
    shared = {"name": "adamw", "betas": [0.9, 0.999], "convention": {"eps": "outside"}}
    checker = secrets.Checker()
    for seed in range(100):
        checker.check({"seed": seed, "optimizer": shared, "task": {"note": f"number {seed}"}})
    with pytest.raises(UsageError, match=r"task\.note"):
        checker.check({"seed": 0, "optimizer": shared, "task": {"note": SHAPES["aws"]}})
    with pytest.raises(UsageError, match=r"task\.password"):
        checker.check({"seed": 0, "optimizer": shared, "task": {"password": 1234}})


@pytest.mark.parametrize(
    "arguments",
    [
        ["seed.pasword=swordfish-canary"],
        ["logger.apikye=swordfish-canary"],
        ["logger.api_kee=swordfish-canary)"],
        ["+optimizer.secrte=swordfish-canary("],
        ["seed={pasword: swordfish-canary}"],
    ],
)
def test_an_error_about_a_key_that_is_nearly_a_secrets_hides_its_value(arguments: list[str]) -> None:
    (line,) = arguments
    text = f"{line}: not a valid override.\nGot {line.partition('=')[2]!r} there."
    shown = secrets.masked(text, arguments)
    assert "canary" not in shown
    assert line.partition("=")[0] in shown


def test_an_error_about_other_keys_stays_as_it_is() -> None:
    lines = ["optimizer.lr=0.1", "task.num_tokens=five", "sweep.name=default", "task.tokenizer=gpt2"]
    for line in lines:
        assert secrets.masked(f"{line}: wrong", lines) == f"{line}: wrong"


# --- The command ---------------------------------------------------------------------------------------------------


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """The exit code of a command, and all that it printed."""
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    captured = capsys.readouterr()
    assert isinstance(caught.value.code, int)
    return caught.value.code, captured.out + captured.err


@pytest.mark.parametrize("verb", [["run"], ["sweep"], ["parity"], ["plan"], ["run", "--cfg", "job"], []])
@pytest.mark.parametrize(
    "line",
    [
        "logger.api_key=swordfish-canary",
        "+optimizer.api_key=swordfish-canary",
        "seed.pasword=swordfish-canary",
        "logger.entity=${oc.env:WANDB_API_KEY}",
        "+hydra.job.env_set.WANDB_API_KEY=swordfish-canary",
        "+hydra.job.env_set={HF_TOKEN: swordfish-canary}",
    ],
)
def test_no_command_prints_a_secret_that_it_was_given(
    verb: list[str],
    line: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "swordfish-canary")
    monkeypatch.chdir(tmp_path)
    code, shown = printed(capsys, *verb, line)
    assert code == 2
    assert "canary" not in shown
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", ["api_key: swordfish-canary", "entity: ${oc.env:WANDB_API_KEY}"])
def test_a_secret_in_a_config_file_is_refused_before_anything_trains(
    content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "swordfish-canary")
    (tmp_path / "conf/logger").mkdir(parents=True)
    (tmp_path / "conf/logger/mine.yaml").write_text(f"name: mine\n_target_: optbench.loggers.NullLogger\n{content}\n")
    monkeypatch.chdir(tmp_path)
    code, shown = printed(capsys, "run", "--config-dir", "conf", "logger=mine", *QUICK)
    assert code == 2
    assert re.search(r"logger\.(api_key|entity)", shown)
    assert "canary" not in shown
    assert not (tmp_path / "results").exists()


# --- What is written -----------------------------------------------------------------------------------------------

QUICK = ["task=quadratic", "budget.num_steps=6", "evaluation.every_num_steps=3"]
CANARIES = {
    "WANDB_API_KEY": "canary1" + "0" * 33,
    "HF_TOKEN": "hf_" + "canary2" * 5,
    "AWS_SECRET_ACCESS_KEY": "canary3" * 6,
    "MY_PASSWORD": "canary4-swordfish",
    "HTTP_PROXY": "http://someone:canary5@127.0.0.1:9",
    "https_proxy": "http://someone:canary6@127.0.0.1:9",
}
FAULTY = """
import os, torch

class Crashing(torch.optim.SGD):
    def step(self, closure=None):
        secret = os.environ["MY_PASSWORD"]
        raise RuntimeError("a fault of its own")

class Telling(torch.optim.SGD):
    def step(self, closure=None):
        print("printed:", "nothing in particular")
        raise RuntimeError(f"refused by {os.environ['https_proxy']} for {os.environ['MY_PASSWORD']}")
"""


def contents(folder: Path) -> Iterator[tuple[Path, bytes]]:
    """Every file below a folder with what is in it, unpacked where it is packed."""
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() or not path.is_file():
            yield path, bytes(str(path.readlink()), "utf-8") if path.is_symlink() else b""
            continue
        content = path.read_bytes()
        if path.suffix == ".parquet":
            content += pd.read_parquet(path).to_csv().encode()
        if content[:2] == b"\x1f\x8b":
            content += zlib.decompress(content, wbits=31)
        yield path, content


def leaks(folder: Path) -> list[str]:
    return [
        f"{path.relative_to(folder)}: {found.group().decode()}"
        for path, content in contents(folder)
        if (found := re.search(rb"canary\d", str(path).encode() + content))
    ]


@pytest.mark.parametrize("executor", [pytest.param("serial", marks=pytest.mark.verify), "local"])
def test_nothing_that_a_sweep_writes_or_prints_holds_a_secret_of_the_environment(executor: str, tmp_path: Path) -> None:
    """Every file below its working folder, its home and its folder for temporary files, those of wandb among them."""
    home, work, temporary = (tmp_path / name for name in ("home", "work", "temporary"))
    for folder in (home, work, temporary, tmp_path / "lib"):
        folder.mkdir()
    (tmp_path / "lib/my_lab.py").write_text(FAULTY)
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("WANDB", "XDG", "HF", "OPTBENCH"))
    }
    environ = {
        **kept,
        **CANARIES,
        "HOME": str(home),
        "TMPDIR": str(temporary),
        "PYTHONPATH": os.pathsep.join([str(tmp_path / "lib"), str(ROOT), os.environ.get("PYTHONPATH", "")]),
    }
    command = [
        *(sys.executable, "-m", "optbench", "sweep", *QUICK, f"executor={executor}", "seed=0", "cost.seconds=0.1"),
        *("optimizer=custom", "optimizer.lr=0.1", "logger=wandb", "logger.mode=offline"),
        "optimizer._target_=torch.optim.SGD,my_lab.Crashing,my_lab.Telling",
    ]
    done = subprocess.run(command, cwd=work, env=environ, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 11, done.stdout + done.stderr
    assert "a fault of its own" in done.stdout + done.stderr
    assert "canary" not in done.stdout + done.stderr
    assert len(list(work.glob("results/default/trials/*.json"))) == 3
    assert len(list(work.glob("wandb/offline-run-*"))) == 3
    # Neither code, patches, packages nor what was printed, each of which wandb would keep by itself.
    assert [path for path in work.glob("wandb/offline-run-*/files/**/*") if path.is_file()] == []
    assert "a fault of its own" in "".join(path.read_text() for path in work.glob("results/default/trials/*.json"))
    assert leaks(tmp_path) == []


def test_the_search_for_leaks_finds_one(tmp_path: Path) -> None:
    pd.DataFrame({"note": ["canary1"] * 1000}).to_parquet(tmp_path / "a.parquet")
    (tmp_path / "b.bin").write_bytes(b"\x00\x01canary2\x02")
    (tmp_path / "c.gz").write_bytes(zlib.compress(b"canary3" * 100, wbits=31))
    (tmp_path / "canary4").touch()
    assert [line[:7] for line in leaks(tmp_path)] == ["a.parqu", "b.bin: ", "c.gz: c", "canary4"]


# --- Names are no paths --------------------------------------------------------------------------------------------


def tree(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder deep enough that a path may lead out of it, and still be seen."""
    folder = tmp_path / "a/b/work"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    return folder


HOSTILE = ["../evil", "/tmp/optbench-evil", "..", ".hidden", "a/b", "-rf", "''", '"a\\nb"']


@pytest.mark.parametrize("name", HOSTILE)
def test_the_name_of_a_sweep_that_is_a_path_is_refused(
    name: str, work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert work.is_dir()
    before = tree(tmp_path)
    code, shown = printed(capsys, "run", *QUICK, "executor=serial", f"sweep.name={name}")
    assert code == 2
    assert "plain folder name" in shown or "sweep.name" in shown
    assert tree(tmp_path) == before
    assert not Path("/tmp/optbench-evil").exists()


@pytest.mark.parametrize(
    "overrides",
    [
        ["optimizer.name=../../evil", "task.name=/tmp/optbench-evil", "schedule.name=.."],
        ["hydra.run.dir=../evil", "hydra.sweep.dir=../evil", "hydra.sweep.subdir=../../evil"],
        ["hydra.job.name=../../evil", "hydra.output_subdir=../evil", "hydra/job_logging=default", "hydra.verbose=true"],
        [
            "hydra.job.chdir=true",
            "hydra.run.dir=../evil",
            "hydra/hydra_logging=default",
            "+hydra.job.env_set={A: ../evil}",
        ],
    ],
    ids=lambda overrides: " ".join(overrides).replace("/", "|"),
)
def test_no_name_or_folder_of_hydras_leads_out_of_the_results(
    overrides: list[str], work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = tree(tmp_path)
    code, shown = printed(capsys, "run", *QUICK, "executor=serial", *overrides)
    assert code == 0, shown
    made = tree(tmp_path) - before
    assert made
    inside = work.relative_to(tmp_path) / "results"
    assert {name for name in made if not Path(name).is_relative_to(inside)} == set()
    assert [path.parent.name for path in work.rglob("*.json") if path.name != "plan.json"] == ["trials"]
    assert not Path("/tmp/optbench-evil").exists()


def test_the_folder_of_results_is_the_users_own_choice(
    work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, shown = printed(capsys, "run", *QUICK, "executor=serial", "results=../elsewhere")
    assert code == 0, shown
    assert list((tmp_path / "a/b/elsewhere/default/trials").glob("*.json"))
    assert list(work.iterdir()) == []


def test_an_option_of_a_searchpath_cannot_set_what_hydra_calls(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An experiment is composed for its trials alone: Hydra does not see its `hydra` node."""
    folder = work / "conf/experiment"
    folder.mkdir(parents=True)
    call = "{_target_: pathlib.Path.touch, self: /tmp/optbench-evil}"
    keys = "".join(f"  {key}: {{x: {call}}}\n" for key in ("callbacks", "sweeper", "launcher", "job_logging"))
    (folder / "mine.yaml").write_text(f"# @package _global_\nhydra:\n{keys}")
    before = tree(work)
    code, _ = printed(capsys, "run", *QUICK, "executor=serial", "experiment=mine", f"hydra.searchpath=[{work}/conf]")
    assert code in (0, 2)
    assert {name for name in tree(work) - before if not name.startswith("results")} == set()
    assert not Path("/tmp/optbench-evil").exists()


# --- Nothing is unpickled, evaluated or given to a shell -----------------------------------------------------------

# What a call must not be, and why one place may make it all the same.
ALLOWED_CALLS: Mapping[str, str] = {}
FORBIDDEN = {
    *(f"{module}.{name}" for module in ("pickle", "cloudpickle", "dill", "marshal") for name in ("load", "loads")),
    *("pickle.Unpickler", "cloudpickle.Unpickler", "shelve.open", "joblib.load"),
    *("pandas.read_pickle", "pd.read_pickle", "pandas.read_hdf", "pd.read_hdf", "yaml.load", "yaml.unsafe_load"),
    *("eval", "exec", "compile", "os.system", "os.popen", "pty.spawn", "subprocess.getoutput"),
    *("subprocess.getstatusoutput", "torch.hub.load", "torch.jit.load", "torch.package.PackageImporter"),
    *("runpy.run_path", "runpy.run_module", "tempfile.mktemp"),
}
NEEDS = {"torch.load": ("weights_only", True)}
MUST_NOT = {"allow_pickle": True, "shell": True, "trust_remote_code": True, "weights_only": False}


def calls(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Each call in a file: its full name, as the file's imports tell it, and its keyword arguments."""
    parsed = ast.parse(path.read_text())
    names = {}
    for node in ast.walk(parsed):
        if isinstance(node, ast.Import):
            names |= {alias.asname or alias.name.partition(".")[0]: alias.name for alias in node.names if alias.asname}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    for node in ast.walk(parsed):
        if isinstance(node, ast.Call):
            first, dot, rest = ast.unparse(node.func).partition(".")
            keywords = {
                word.arg: word.value.value if isinstance(word.value, ast.Constant) else word.value
                for word in node.keywords
                if word.arg
            }
            yield f"{names.get(first, first)}{dot}{rest}", keywords


def faults(path: Path) -> list[str]:
    found = []
    for name, keywords in calls(path):
        if name in FORBIDDEN:
            found.append(name)
        if name in NEEDS and keywords.get(NEEDS[name][0]) is not NEEDS[name][1]:
            found.append(f"{name} without {NEEDS[name][0]}")
        found += [f"{name} with {key}" for key, value in MUST_NOT.items() if key in keywords and keywords[key] is value]
        # A value that is not written there could be anything.
        found += [f"{name} with {key}" for key in MUST_NOT if isinstance(keywords.get(key), ast.AST)]
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_module_unpickles_evaluates_or_calls_a_shell(path: Path) -> None:
    name = str(path.relative_to(ROOT))
    assert [fault for fault in faults(path) if f"{name}: {fault}" not in ALLOWED_CALLS] == []


def test_every_exception_to_that_is_still_needed() -> None:
    found = {f"{path.relative_to(ROOT)}: {fault}" for path in SOURCES for fault in faults(path)}
    assert set(ALLOWED_CALLS) <= found


@pytest.mark.parametrize(
    "line",
    [
        "import torch; torch.load(path)",
        "import torch as t; t.load(path, weights_only=False)",
        "from torch import load; load(path, weights_only=flag)",
        "import pickle; pickle.loads(x)",
        "from pickle import loads as l; l(x)",
        "import numpy as np; np.load(x, allow_pickle=True)",
        "import pandas as pd; pd.read_pickle(x)",
        "import subprocess; subprocess.run(x, shell=True)",
        "import os; os.system(x)",
        "eval(x)",
        "from os import system; system(x)",
    ],
)
def test_the_search_for_such_calls_finds_them(line: str, tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(line)
    assert faults(tmp_path / "a.py")


def test_it_passes_over_what_is_harmless(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(
        "import torch, re, numpy as np\ntorch.load(p, weights_only=True)\nmodel.eval()\nre.compile('a')\nnp.load(p)\n"
    )
    assert faults(tmp_path / "a.py") == []
