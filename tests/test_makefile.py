"""The Makefile: a Hydra override arrives as it was typed, and `.venv` is made when it must be and only then.

Each test works in a checkout that holds the Makefile and stand-ins for Python, uv and `optbench`. They write
down how they were called and install nothing.
"""

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

MAKEFILE = Path(__file__).parent.parent / "Makefile"

PINS = "numpy==2.0.0\ntorch==9.9.9\ntorchvision==1.0.0\n"

# As Python it names the interpreter to build on, makes an environment around itself, and is the pip in it; as
# uv it does the last two. The one installation that ends like the file `spoiled` runs the script `spoiler`.
INSTALLER = """\
#!/bin/sh
cd "{checkout}"
if [ "$1" = -c ]; then echo "$PWD/bin/python3"; exit; fi
echo "${{0##*/}} $*" >> calls
case "$*" in
venv* | '-m venv'*)
    mkdir -p .venv/bin
    cp bin/python3 .venv/bin/python
    for tool in optbench pytest ruff mypy; do cp bin/tool .venv/bin/$tool; done ;;
*"$(cat spoiled 2>/dev/null || echo nothing)") . ./spoiler ;;
esac
"""

# Python would take ten times as long to start as the rest of a test needs.
TOOL = """\
#!/bin/sh
printf '%s\\0' "$@" > "{checkout}/${{0##*/}}.argv"
env > "{checkout}/${{0##*/}}.environ"
pwd > "{checkout}/${{0##*/}}.folder"
"""


@dataclass(frozen=True)
class Checkout:
    """A folder with the Makefile, where `make` runs with the stand-ins alone."""

    folder: Path
    environ: dict[str, str] = field(repr=False)

    def make(self, *words: str, cwd: Path | None = None) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            ["make", *words],
            cwd=cwd or self.folder,
            env=self.environ,
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )

    def optbench(self, *words: str, cwd: Path | None = None) -> list[str]:
        """What `optbench` was called with by `make` with these words."""
        done = self.make("-s", *words, cwd=cwd)
        assert done.returncode == 0, done.stderr
        return self.argv("optbench")

    def argv(self, tool: str) -> list[str]:
        return (self.folder / f"{tool}.argv").read_text().split("\0")[:-1]

    def variables(self, tool: str) -> set[str]:
        """The names in the environment of a tool's last call."""
        lines = (self.folder / f"{tool}.environ").read_text().splitlines()
        return {line.partition("=")[0] for line in lines}

    def installer_calls(self) -> list[str]:
        """How Python and uv were called since this was last asked."""
        log = self.folder / "calls"
        calls = log.read_text().splitlines() if log.exists() else []
        log.unlink(missing_ok=True)
        return calls

    def spoil(self, installation: str, script: str) -> None:
        (self.folder / "spoiled").write_text(installation)
        (self.folder / "spoiler").write_text(script)

    def write(self, name: str, text: str) -> None:
        """Write a file that is newer than everything make has built so far."""
        path = self.folder / name
        path.write_text(text)
        later = time.time() + 5
        os.utime(path, (later, later))


def program(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


def wait_for(condition: Callable[[], bool], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def new_checkout(folder: Path, *, uv: bool = False) -> Checkout:
    (folder / "Makefile").write_text(MAKEFILE.read_text())
    (folder / "constraints.txt").write_text(PINS)
    (folder / "pyproject.toml").touch()
    program(folder / "bin/python3", INSTALLER.format(checkout=folder))
    program(folder / "bin/tool", TOOL.format(checkout=folder))
    if uv:
        program(folder / "bin/uv", INSTALLER.format(checkout=folder))
    environ = {"PATH": f"{folder / 'bin'}:/usr/bin:/bin", "LC_ALL": "C.UTF-8", "HOME": str(folder)}
    return Checkout(folder, environ if uv else environ | {"UV": ""})


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return new_checkout(tmp_path)


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A checkout that is set up, for tests that leave it as it is."""
    checkout = new_checkout(tmp_path_factory.mktemp("ready"))
    checkout.optbench("list")
    return checkout


@pytest.fixture(params=["pip", "uv"])
def either(request: pytest.FixtureRequest, tmp_path: Path) -> Checkout:
    """A checkout that is not set up, on a machine without uv and on one with it."""
    return new_checkout(tmp_path, uv=request.param == "uv")


AWKWARD = {
    "choices": "optimizer=lion,adamw",
    "numbers": "optimizer.lr=1e-4,3e-4",
    "parentheses": "seed=range(1,5)",
    "nested_parentheses": "tag(log,interval(1e-4,1))=x",
    "a_call_within_a_call": "optimizer.lr=tag(log,interval(1e-4,1))",
    "an_open_parenthesis": "name=(",
    "brackets": "optimizer.betas=[0.9,0.99],[0.95,0.98]",
    "braces": "model={a:1,b:2}",
    "an_addition": "+schedule.warmup=0.1",
    "a_forced_addition": "++k.j=2",
    "a_deletion_with_a_value": "~task=mlp",
    "a_slash": "hydra/launcher=ray",
    "a_package": "key@pkg=v",
    "an_addition_into_a_package": "+a.b@c.d=x",
    "an_index": "optimizer.betas.0=0.9",
    "a_blank": "name=a b",
    "two_blanks": "name=a  b",
    "a_blank_at_the_end": "name=a ",
    "a_tab": "name=a\tb",
    "a_single_quote": "name=it's",
    "a_single_quote_and_a_blank": "name=it' s",
    "double_quotes": 'name="a b"',
    "quotes_within_quotes": "name='say \"hi\"'",
    "a_backslash": "name=a\\b",
    "a_backslash_at_the_end": "name=a\\",
    "a_backslash_before_a_blank": "name=a\\ b",
    "two_backslashes_before_a_blank": "name=a\\\\ b",
    "a_backslash_before_a_quote": "name=\\' \\\\' x",
    "an_interpolation": "name=${oc.env:HOME}",
    "an_interpolation_with_a_default": "name=${oc.env:HOME,1}",
    "a_shell_variable": "name=$HOME",
    "two_dollars": "name=$$q",
    "a_make_variable": "name=$(PYTHON)",
    "a_make_function": "name=$(shell touch injected)",
    "an_unclosed_make_function": "name=$(shell",
    "a_command_substitution": "name=`touch injected`",
    "a_second_command": "name=;touch injected|touch injected&touch injected",
    "a_redirection": "name=<a>b",
    "a_glob": "name=*?[a-z]",
    "a_comment": "name=a # b",
    "a_percent": "name=%a%",
    "an_exclamation_mark": "name=!a!",
    "a_tilde": "name=~",
    "a_caret": "name=^a",
    "an_accent": "name=é",
    "an_equals_sign": "name=y=z",
    "a_colon": "name=a:=b",
    "nothing": "name=",
    "options": "name=--cfg job -x",
}


@pytest.mark.parametrize("override", AWKWARD.values(), ids=AWKWARD.keys())
def test_an_override_arrives_verbatim_beside_any_other_and_nothing_in_it_is_executed(
    ready: Checkout, override: str
) -> None:
    words = ["first=it's \\", override, "last=\\ x"]
    assert ready.optbench("sweep", *words) == ["sweep", *words]
    assert not (ready.folder / "injected").exists()


VERBS = {
    **{verb: [verb] for verb in ("sweep", "run", "plan", "status", "reproduce", "claims", "regress", "report", "list")},
    "nightly": ["regress", "suite=nightly"],
    "baseline": ["baseline", "accept"],
}


@pytest.mark.parametrize("target", VERBS)
def test_overrides_arrive_in_the_order_in_which_they_were_typed(ready: Checkout, target: str) -> None:
    # Make knows a variable once only, so the same key twice would be one word.
    words = list({word.partition("=")[0]: word for word in AWKWARD.values()}.values())
    assert ready.optbench(target, *words) == [*VERBS[target], *words]
    assert ready.optbench("-j4", "-k", *words[::-1], target) == [*VERBS[target], *words[::-1]]


def test_the_reason_of_a_baseline_is_one_word(ready: Checkout) -> None:
    reason = "FLAGS=--reason 'torch 2.14: it is quicker'"
    words = ["--reason", "torch 2.14: it is quicker", "suite=quick"]
    assert ready.optbench("baseline", "suite=quick", reason) == ["baseline", "accept", *words]


def test_a_whole_sweep_arrives_as_it_was_typed(ready: Checkout) -> None:
    typed = (
        "optimizer=lion,adamw task=mnist_mlp optimizer.lr=1e-4,3e-4 'seed=range(5)' "
        "'optimizer.betas=[0.9,0.99]' +schedule.warmup=0.1"
    )
    assert ready.optbench("sweep", *shlex.split(typed)) == ["sweep", *shlex.split(typed)]


def test_a_deletion_without_a_value_arrives_after_the_overrides(ready: Checkout) -> None:
    assert ready.optbench("sweep", "~weight_decay", "seed=1") == ["sweep", "seed=1", "~weight_decay"]
    assert ready.optbench("~a", "sweep", "~b@it's") == ["sweep", "~a", "~b@it's"]


def test_flags_come_first_and_are_as_many_words_as_the_shell_makes_of_them(ready: Checkout) -> None:
    assert ready.optbench("run", "seed=1", "FLAGS=--cfg job") == ["run", "--cfg", "job", "seed=1"]
    assert ready.optbench("list", "FLAGS='a b'") == ["list", "a b"]


def test_no_key_is_kept_back_for_being_a_name_of_makes(ready: Checkout) -> None:
    words = ["results=x", "task=y", "python=z", "flags=a", "word=b", "venv=c", "test=d", "shell=e", "uv=f"]
    assert ready.optbench("sweep", *words) == ["sweep", *words]


def test_no_variable_that_could_be_a_key_means_something_to_the_makefile() -> None:
    names = re.findall(r"^([\w.]+)\s*[:?+]?=|^define (\w+)$", MAKEFILE.read_text(), re.MULTILINE)
    assert len(names) > 10
    assert [name for pair in names for name in pair if name and not re.match(r"[A-Z_.]", name)] == []


def test_names_kept_for_make_do_not_reach_hydra(ready: Checkout) -> None:
    kept = ["PYTHON=python3", "UV=", "PYTEST_FLAGS=-x", "FLAGS="]
    assert ready.optbench("sweep", *kept, "PYTHONHASH=1") == ["sweep", "PYTHONHASH=1"]


def test_a_line_break_in_an_override_is_refused(ready: Checkout) -> None:
    done = ready.make("sweep", "name=a\ntouch injected")
    assert done.returncode == 2
    assert "An override cannot hold a line break" in done.stderr
    assert not (ready.folder / "injected").exists()


def test_neither_make_nor_an_override_shows_in_the_environment(ready: Checkout) -> None:
    ready.optbench("-j2", "sweep", "task=x", "HOMES=a b", "name=$(shell touch injected)", "UV=")
    variables = ready.variables("optbench")
    assert "HOME" in variables
    assert [name for name in variables if name.startswith(("MAKE", "MFLAGS"))] == []
    assert variables.isdisjoint({"task", "HOMES", "name", "UV"})
    assert not (ready.folder / "injected").exists()


def test_make_runs_from_another_folder(ready: Checkout, tmp_path: Path) -> None:
    assert ready.optbench("-C", str(ready.folder), "sweep", "seed=1", cwd=tmp_path) == ["sweep", "seed=1"]
    assert Path((ready.folder / "optbench.folder").read_text().rstrip()).samefile(ready.folder)


def test_the_exit_code_of_optbench_decides(checkout: Checkout) -> None:
    program(checkout.folder / "bin/tool", "#!/bin/sh\nexit 3\n")
    done = checkout.make("run")
    assert done.returncode == 2
    assert done.stderr.endswith("Error 3\n")


def test_ending_make_ends_optbench(checkout: Checkout) -> None:
    wait = "touch started; for _ in $(seq 100); do sleep 0.05; done"
    program(checkout.folder / "bin/tool", f"#!/bin/sh\ntrap 'touch ended; exit 1' TERM\n{wait}\n")
    with subprocess.Popen(
        ["make", "run"], cwd=checkout.folder, env=checkout.environ, stderr=subprocess.DEVNULL
    ) as running:
        wait_for(lambda: (checkout.folder / "started").exists())
        running.terminate()
    wait_for(lambda: (checkout.folder / "ended").exists())


def test_make_alone_lists_every_target_and_sets_nothing_up(checkout: Checkout) -> None:
    documented = re.findall(r"^([a-z]+):.* ## (\S.*)$", MAKEFILE.read_text(), re.MULTILINE)
    done = checkout.make()
    assert done.returncode == 0
    assert re.findall(r"^  ([a-z]+) +(\S.*)$", done.stdout, re.MULTILINE)[-len(documented) :] == documented
    assert "make sweep task=mnist_mlp optimizer=lion,adamw 'seed=range(5)'" in done.stdout
    assert checkout.installer_calls() == []


def test_every_phony_target_says_what_it_does() -> None:
    text = MAKEFILE.read_text()
    phony = re.findall(r"^\.PHONY: (.*)$", text, re.MULTILINE)[0].split()
    assert re.findall(r"^([a-z-]+):.* ## ", text, re.MULTILINE) == phony


def test_torch_comes_first_with_its_exact_pin_and_then_the_package(either: Checkout) -> None:
    done = either.make("sweep", "-j4")
    assert done.returncode == 0, done.stderr
    created, torch, package = either.installer_calls()
    assert "venv" in created
    assert torch.endswith("--constraint constraints.txt torch==9.9.9")
    assert package.endswith("--constraint constraints.txt --editable .")


def test_uv_makes_the_environment_where_it_is_on_the_path_unless_it_is_ruled_out(tmp_path: Path) -> None:
    checkout = new_checkout(tmp_path, uv=True)
    checkout.optbench("sweep")
    assert {call.split()[0] for call in checkout.installer_calls()} == {"uv"}
    checkout.make("distclean")
    checkout.optbench("sweep", "UV=")
    assert {call.split()[0] for call in checkout.installer_calls()} == {"python3", "python"}


def test_set_up_says_what_it_does_and_why_it_takes_a_while_once(either: Checkout) -> None:
    first, second = either.make("run"), either.make("run")
    assert re.search(r"Setting up \.venv with \S+/bin/python3\. Once, .* minutes\.", first.stderr)
    assert (second.stdout, second.stderr) == ("", "")


def test_the_checks_get_their_tools_and_the_optional_dependencies(either: Checkout) -> None:
    done = either.make("-j4", "test", "lint", "typecheck", "sweep")
    assert done.returncode == 0, done.stderr
    (extras,) = (call for call in either.installer_calls() if "--editable" in call)
    assert extras.endswith("--constraint constraints.txt --editable .[dev,lora,ray,slurm,tensorboard,zoo]")


def test_the_tools_come_to_an_environment_that_has_the_package_alone(either: Checkout) -> None:
    either.optbench("sweep")
    either.installer_calls()
    assert either.make("lint").returncode == 0
    (extras,) = either.installer_calls()
    assert extras.endswith("--editable .[dev,lora,ray,slurm,tensorboard,zoo]")
    assert either.make("lint").returncode == 0
    assert either.installer_calls() == []


PARALLEL = ["--numprocesses=auto", "--dist=loadfile", "--no-loadscope-reorder", "-p", "no:benchmark"]


@pytest.mark.parametrize(
    ("target", "argv"),
    [
        ("test", [*PARALLEL, "--ignore=tests/benchmarks", "--ignore=tests/gpu", "-m", "not verify"]),
        ("verify", [*PARALLEL, "--ignore=tests/benchmarks", "--ignore=tests/gpu"]),
        ("verify-gpu", ["tests/gpu", "-p", "no:benchmark", "-rs", "-s"]),
        ("bench", ["tests/benchmarks", "--ignore=tests/benchmarks/test_step.py"]),
    ],
)
def test_long_comparisons_and_benchmarks_run_when_asked_for(checkout: Checkout, target: str, argv: list[str]) -> None:
    checkout.make(target, "PYTEST_FLAGS=-k 'a or b'")
    assert checkout.argv("pytest") == [*argv, "-k", "a or b"]
    assert [name for name in checkout.variables("pytest") if name.startswith(("MAKE", "MFLAGS"))] == []


def test_bench_times_steps_last_and_only_where_the_rest_has_passed(checkout: Checkout) -> None:
    assert checkout.make("bench", "FLAGS=--allow-unknown").returncode == 0
    assert checkout.argv("optbench") == ["regress", "suite=bench", "--allow-unknown"]
    assert [name for name in checkout.variables("optbench") if name.startswith(("MAKE", "MFLAGS"))] == []
    (checkout.folder / "optbench.argv").unlink()
    program(checkout.folder / ".venv/bin/pytest", "#!/bin/sh\nexit 1\n")
    assert checkout.make("bench").returncode == 2
    assert not (checkout.folder / "optbench.argv").exists()


def test_regression_runs_get_the_optional_dependencies(either: Checkout) -> None:
    assert either.optbench("nightly", "-j4") == ["regress", "suite=nightly"]
    (extras,) = (call for call in either.installer_calls() if "--editable" in call)
    assert extras.endswith("--editable .[dev,lora,ray,slurm,tensorboard,zoo]")


def test_the_next_version_of_hydra_goes_beside_the_environment_and_before_it(either: Checkout) -> None:
    (either.folder / "constraints-next.txt").write_text("hydra-core==9.0.0\n")
    done = either.make("next", "-j4", "PYTEST_FLAGS=-x")
    assert done.returncode == 0, done.stderr
    *_, extras, beside = either.installer_calls()
    assert extras.endswith("]")
    assert beside.endswith("--no-deps --target build/hydra-next --requirement constraints-next.txt")
    environ = (either.folder / "pytest.environ").read_text().splitlines()
    assert f"PYTHONPATH={either.folder.resolve()}/build/hydra-next" in environ
    assert "OPTBENCH_TESTED_PINS=constraints-next.txt" in environ
    assert "tests/test_hydra_next.py" in either.argv("pytest")
    assert either.argv("pytest")[-1] == "-x"
    assert either.make("next").returncode == 0
    assert either.installer_calls() == []
    either.write("constraints-next.txt", "hydra-core==9.0.1\n")
    assert either.make("next").returncode == 0
    assert len(either.installer_calls()) == 1


def test_an_environment_that_is_there_is_left_alone(either: Checkout) -> None:
    either.optbench("sweep")
    assert len(either.installer_calls()) == 3
    either.optbench("sweep")
    assert either.installer_calls() == []


def test_changed_pins_make_a_new_environment(either: Checkout) -> None:
    either.optbench("sweep")
    either.installer_calls()
    (either.folder / ".venv/leftover").touch()
    either.write("constraints.txt", PINS.replace("9.9.9", "10.0.0"))
    either.optbench("sweep")
    created, torch, _ = either.installer_calls()
    assert "venv" in created
    assert torch.endswith(" torch==10.0.0")
    assert not (either.folder / ".venv/leftover").exists()


def test_pins_that_are_newer_but_the_same_keep_the_environment(either: Checkout) -> None:
    either.optbench("sweep")
    either.installer_calls()
    either.write("constraints.txt", PINS)
    either.optbench("sweep")
    assert [call for call in either.installer_calls() if "venv" in call.split() or "torch==9.9.9" in call] == []


def test_a_changed_pyproject_installs_the_package_again_and_nothing_else(either: Checkout) -> None:
    either.optbench("sweep")
    either.installer_calls()
    either.write("pyproject.toml", "# changed")
    either.optbench("sweep")
    (package,) = either.installer_calls()
    assert package.endswith("--editable .")


INSTALLATIONS = {"torch": "torch==9.9.9", "package": "--editable .[dev,lora,ray,slurm,tensorboard,zoo]"}


@pytest.mark.parametrize("spoiled", INSTALLATIONS.values(), ids=INSTALLATIONS.keys())
def test_a_failed_installation_shows_why_and_is_made_up_for_the_next_time(either: Checkout, spoiled: str) -> None:
    either.spoil(spoiled, "echo 'ERROR: no match' >&2; exit 1")
    failed = either.make("test")
    assert failed.returncode == 2
    assert failed.stderr.index("ERROR: no match") < failed.stderr.index("It needs the network")
    assert not (either.folder / "pytest.argv").exists()
    *_, call = either.installer_calls()
    (either.folder / "spoiled").unlink()
    assert either.make("test").returncode == 0
    assert call in either.installer_calls()
    assert (either.folder / "pytest.argv").exists()


@pytest.mark.parametrize("spoiled", INSTALLATIONS.values(), ids=INSTALLATIONS.keys())
def test_an_interrupted_installation_is_made_up_for_the_next_time(either: Checkout, spoiled: str) -> None:
    either.spoil(spoiled, "exec sleep 30")
    with subprocess.Popen(
        ["make", "test"],
        cwd=either.folder,
        env=either.environ,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        # A job in the background of a script ignores SIGINT, and so would all that it starts.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as running:
        calls = either.folder / "calls"
        wait_for(lambda: calls.exists() and f"{spoiled}\n" in calls.read_text())
        os.killpg(running.pid, signal.SIGINT)
    assert running.returncode != 0
    *_, call = either.installer_calls()
    (either.folder / "spoiled").unlink()
    assert either.make("test").returncode == 0
    assert call in either.installer_calls()


@pytest.mark.parametrize(("version", "found"), [("(3, 10, 13)", "Python 3.10.13"), ("(2, 7, 18)", "Python 2.7.18")])
def test_a_python_that_is_too_old_is_named_in_one_line(either: Checkout, version: str, found: str) -> None:
    pretend = f"import sys; sys.version_info = {version}; exec(sys.argv[1])"
    program(either.folder / "old", f'#!/bin/sh\nexec {sys.executable} -I -c "{pretend}" "$2"\n')
    done = either.make("sweep", "PYTHON=./old")
    message, _ = done.stderr.splitlines()
    assert message == (
        f"optbench needs Python 3.11 or newer; ./old is {found}. Name another: make sweep PYTHON=python3.12"
    )
    assert done.returncode == 2
    assert either.installer_calls() == []


def test_a_python_that_is_not_there_is_named_in_one_line(checkout: Checkout) -> None:
    message, _ = checkout.make("run", "PYTHON=python9").stderr.splitlines()
    assert message.startswith("optbench needs Python 3.11 or newer; python9 is not to be found. Name another: make run")


def test_an_activated_environment_is_remade_from_the_python_under_it(tmp_path: Path) -> None:
    checkout = new_checkout(tmp_path, uv=True)
    activated = tmp_path / ".venv/bin/python"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", activated.parent.parent], check=True)
    checkout.optbench("sweep", f"PYTHON={activated}")
    created, *_ = checkout.installer_calls()
    base = Path(created.split()[-2])
    assert base.is_absolute()
    assert not base.is_relative_to(tmp_path)


def test_clean_keeps_results_and_the_environment(checkout: Checkout) -> None:
    checkout.optbench("sweep")
    for name in ("optbench/__pycache__/a.pyc", "build/a", "dist/a", "results/a", "results/__pycache__/a"):
        (checkout.folder / name).parent.mkdir(parents=True)
        (checkout.folder / name).touch()
    assert checkout.make("clean").returncode == 0
    left = {path.name for path in checkout.folder.iterdir()}
    assert {"results", ".venv"} <= left
    assert left.isdisjoint({"build", "dist"})
    assert [path.parent.name for path in checkout.folder.rglob("__pycache__")] == ["results"]
    assert checkout.make("distclean").returncode == 0
    assert not (checkout.folder / ".venv").exists()
