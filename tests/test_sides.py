"""The other side of a comparison: what `--against` names, and the environment that is made of it."""

import subprocess
import zipfile
from pathlib import Path

import pytest

from optbench import machine
from optbench.errors import UsageError
from optbench.regress import sides
from optbench.regress.sides import Side, check, kind_of, make

IS_CHECKOUT = bool(machine.git("ls-files", "__init__.py"))


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sides, "cache_folder", lambda: tmp_path / "cache")


@pytest.mark.parametrize(
    ("against", "kind"),
    [
        ("HEAD~1", "git"),
        ("origin/main", "git"),
        ("v0.1.0", "git"),
        ("0123abc", "git"),
        ("torch==2.11.0", "pins"),
        ("torch==2.11.0 bitsandbytes==0.48.0", "pins"),
        ("torch>=2.10,<2.12", "pins"),
        ("torch==2.11.0, schedulefree==1.4", "pins"),
        ("dist/optbench-0.1.0-py3-none-any.whl", "wheel"),
    ],
)
def test_against_names_a_commit_pins_or_a_wheel(against: str, kind: str) -> None:
    assert kind_of(against) == kind


def test_what_is_not_there_is_said_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no such file"):
        check(str(tmp_path / "optbench-1.0-py3-none-any.whl"))
    with pytest.raises(UsageError, match=r"git knows no such commit|does not run from a checkout"):
        check("no-such-branch")
    assert not (tmp_path / "cache").exists()


def test_an_option_is_no_commit() -> None:
    with pytest.raises(UsageError):
        check("--output=/tmp/x")


def wheel(folder: Path, *, version: str) -> Path:
    """A wheel of a package that is called optbench and says its version."""
    info = f"optbench-{version}.dist-info"
    path = folder / f"optbench-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("optbench/__init__.py", f"__version__ = '{version}'\n")
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: optbench\nVersion: {version}\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return path


def version_in(side: Side) -> str:
    asked = "import importlib.metadata, optbench; print(optbench.__version__, importlib.metadata.version('optbench'))"
    done = subprocess.run(
        [side.python, "-P", "-c", asked], env=side.environ(), capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_a_wheel_comes_before_what_is_installed_and_is_unpacked_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    side = make(str(wheel(tmp_path, version="9.9.9")))
    assert version_in(side) == "9.9.9 9.9.9"
    assert "Making the other side: optbench-9.9.9" in capsys.readouterr().err
    assert make(str(tmp_path / "optbench-9.9.9-py3-none-any.whl")) == side
    assert not capsys.readouterr().err, "it is there from before"


def test_a_wheel_that_is_none_is_a_mistake_and_leaves_nothing_that_looks_made(tmp_path: Path) -> None:
    broken = tmp_path / "optbench-1.0-py3-none-any.whl"
    broken.write_text("no wheel")
    for _ in range(2):
        with pytest.raises(UsageError, match="pip says"):
            make(str(broken))


@pytest.mark.packaging
@pytest.mark.skipif(not IS_CHECKOUT, reason="optbench does not run from a checkout")
def test_a_commit_is_measured_with_its_own_code(tmp_path: Path) -> None:
    side = make("HEAD")
    assert side.name.startswith("HEAD (")
    asked = "import optbench.conf, optbench.tasks; print(optbench.__file__)"
    done = subprocess.run(
        [side.python, "-P", "-c", asked], env=side.environ(), capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith(str(tmp_path / "cache" / "environments"))


def test_pins_leave_everything_else_as_it_is_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []
    monkeypatch.setattr(sides, "_pip", lambda _, *arguments, **__: asked.append(list(arguments)))
    monkeypatch.setattr(sides, "_new_environment", lambda folder: folder.mkdir(parents=True))
    side = make("Lion_PyTorch==0.2.2 numpy==2.3.0")
    assert side.python.startswith(str(tmp_path / "cache" / "environments"))
    (constraints,) = (tmp_path / "cache" / "environments").glob("*.txt")
    lines = constraints.read_text().splitlines()
    assert {"numpy==2.3.0", "Lion_PyTorch==0.2.2", f"pandas=={machine.version('pandas')}"} <= set(lines)
    assert sum(line.lower().startswith(("numpy==", "lion")) for line in lines) == 2
    torch = f"torch=={machine.version('torch')}".partition("+")[0]
    assert asked[0] == ["install", torch], "alone, it is taken as a build for the CPU where the index has one"
    assert {"numpy==2.3.0", "Lion_PyTorch==0.2.2", "--constraint"} <= set(asked[1])
