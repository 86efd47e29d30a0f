"""The environments that are held against each other: this one, and one made of a commit, of pins or of a wheel."""

import hashlib
import importlib.metadata
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import optbench
from optbench.console import note
from optbench.errors import UsageError
from optbench.hub import cache_folder
from optbench.machine import git
from optbench.secrets import hidden

Kind = Literal["git", "pins", "wheel"]
# What the catalogue's optimizers and tasks can use, besides what optbench depends on: where it is installed here, the
# other side has it, too.
_EXTRAS = ("lora", "zoo")
_PIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(\[[^\]]*\])?\s*(===?|~=|!=|<=?|>=?).+")
_STAMP = "made"


@dataclass(frozen=True, kw_only=True)
class Side:
    """An environment that can measure.

    Attributes:
        name: in words.
        python: its interpreter.
        variables: of its processes, besides those of this one.
        root: the folder that its optbench lies below.
    """

    name: str
    python: str = sys.executable
    variables: Mapping[str, str] = field(default_factory=dict)
    root: Path = Path(optbench.__file__).parent

    def environ(self) -> dict[str, str]:
        """The variables of its processes."""
        others = ("PYTHONPATH", "PYTHONHOME") if self.python != sys.executable else ()  # would come before its own
        return {**{key: value for key, value in os.environ.items() if key not in others}, **self.variables}

    def check(self, file: str) -> None:
        """Check that a process of it has used its optbench and no other.

        Args:
            file: `optbench.__file__` there.

        Raises:
            UsageError: it has not, so that its figures would be another's.
        """
        if not Path(file).resolve().is_relative_to(self.root.resolve()):
            raise UsageError(
                f"{self.name}: its processes use {file}, and not the optbench below {self.root}. Look for what comes "
                "first on their path, such as a .pth file of the environment."
            )


def kind_of(against: str) -> Kind:
    """What `--against` names: a wheel, pins of packages, or else something that git knows."""
    if against.endswith(".whl"):
        return "wheel"
    pins = _pins(against)
    return "pins" if pins and all(map(_PIN.fullmatch, pins)) else "git"


def check(against: str) -> None:
    """Check what can be checked before anything is measured.

    Raises:
        UsageError: there is no such file or commit, or no checkout to look for it.
    """
    if not against.strip():
        raise UsageError("--against: nothing is named. Give a commit, pins such as torch==2.11.0, or a wheel.")
    match kind_of(against):
        case "wheel" if not Path(against).is_file():
            raise UsageError(f"--against {against}: there is no such file.")
        case "git":
            _commit(against)


def make(against: str) -> Side:
    """The environment that `--against` names, made in the user's cache folder where it is not there from before.

    Raises:
        UsageError: it cannot be made; with what pip says.
    """
    try:
        match kind_of(against):
            case "wheel":
                return _of_wheel(Path(against))
            case "pins":
                return _of_pins(_pins(against))
            case _:
                return _of_commit(against)
    except (OSError, subprocess.CalledProcessError) as error:
        raise UsageError(
            f"--against {against}: the environment could not be made below {cache_folder()}: {error}."
        ) from error


def _pins(against: str) -> list[str]:
    return [word for word in re.split(r"[\s,]+(?=[A-Za-z])", against.strip()) if word]


# --- A wheel, a commit: optbench alone is another, in a folder that comes before what is installed --------------------


def _of_wheel(wheel: Path) -> Side:
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    folder = _folder("wheel", wheel.name, digest, *_installed())
    if not (folder / _STAMP).is_file():
        _overlay(folder, str(wheel.resolve()), what=wheel.name)
    return Side(name=wheel.name, variables=_before_all(folder), root=folder)


def _of_commit(ref: str) -> Side:
    root, commit = _commit(ref)
    name = ref if commit.startswith(ref) else f"{ref} ({commit[:10]})"
    pins = _git(root, "show", f"{commit}:constraints.txt")
    has_other_pins = pins is not None and pins.strip() != _text(root / "constraints.txt").strip()
    folder = _folder("git", "whole" if has_other_pins else "overlay", commit, *_installed())
    source = folder.with_name(f"{folder.name}-source")
    if not (folder / _STAMP).is_file():
        shutil.rmtree(source, ignore_errors=True)
        _unpack(root, commit, source)
        if has_other_pins:
            torch = [line for line in (pins or "").splitlines() if line.startswith("torch==")]
            _whole(folder, source, ["--constraint", str(source / "constraints.txt")], torch=torch, what=name)
        else:
            _overlay(folder, str(source), what=name)
        shutil.rmtree(source, ignore_errors=True)
    if has_other_pins:
        return Side(name=name, python=str(folder / "bin" / "python"), root=folder)
    return Side(name=name, variables=_before_all(folder), root=folder)


def _commit(ref: str) -> tuple[Path, str]:
    top = git("rev-parse", "--show-toplevel")
    if not top or not git("ls-files", "__init__.py"):
        raise UsageError(
            f"--against {ref}: optbench does not run from a checkout here, so that there are no commits.\n"
            "Give pins (--against torch==2.11.0), or a wheel (--against dist/optbench-0.1.0-py3-none-any.whl)."
        )
    commit = git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{ref}^{{commit}}")
    if not commit:
        known = [*git("branch", "--format=%(refname:short)").split(), *git("tag").split()]
        listed = f" Branches and tags: {', '.join(known[:10])}." if known else ""
        raise UsageError(
            f"--against {ref}: git knows no such commit, and it is neither a wheel nor a pin such as torch==2.11.0."
            f"{listed}"
        )
    return Path(top), commit


def _unpack(root: Path, commit: str, folder: Path) -> None:
    packed = subprocess.run(["git", "-C", str(root), "archive", commit], capture_output=True, check=False)
    if packed.returncode:
        raise UsageError(f"git archive {commit}: {packed.stderr.decode(errors='replace').strip()}")
    folder.mkdir(parents=True)
    with tarfile.open(fileobj=io.BytesIO(packed.stdout)) as archive:
        archive.extractall(folder, filter="data")


def _text(path: Path) -> str:
    return path.read_text() if path.is_file() else ""


def _git(root: Path, *arguments: str) -> str | None:
    answer = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=False)
    return None if answer.returncode else answer.stdout


def _overlay(folder: Path, what_to_install: str, *, what: str) -> None:
    note(f"Making the other side: {what}, once.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(folder, ignore_errors=True)
    _pip(sys.executable, "install", "--no-deps", "--target", str(folder), what_to_install, what=what)
    (folder / _STAMP).touch()


def _before_all(folder: Path) -> dict[str, str]:
    others = os.environ.get("PYTHONPATH")
    return {"PYTHONPATH": os.pathsep.join([str(folder), *([others] if others else [])])}


# --- Pins: an environment of its own ----------------------------------------------------------------------------------


def _of_pins(pins: Sequence[str]) -> Side:
    named = {_canonical(re.split(r"[\[\s=~!<>@]", pin)[0]) for pin in pins}
    others = [line for line in _installed() if _canonical(line.partition("==")[0]) not in named]
    folder = _folder("pins", *pins, *others)
    if not (folder / _STAMP).is_file():
        folder.parent.mkdir(parents=True, exist_ok=True)
        constraints = folder.with_name(f"{folder.name}.txt")
        constraints.write_text("\n".join([*others, *pins]) + "\n")
        torch = [line for line in (*pins, *others) if line.startswith("torch==")]
        _whole(folder, _source(), [*pins, "--constraint", str(constraints)], torch=torch, what=" ".join(pins))
    own = Side.root if isinstance(_source(), Path) else folder
    return Side(name=" ".join(pins), python=str(folder / "bin" / "python"), root=own)


def _source() -> Path | str:
    """What optbench is installed from, here and there: its checkout, or this version of it."""
    top = git("rev-parse", "--show-toplevel")
    if top and git("ls-files", "__init__.py"):
        return Path(top)
    return f"optbench=={importlib.metadata.version('optbench')}"


def _whole(folder: Path, source: Path | str, arguments: Sequence[str], *, torch: Sequence[str], what: str) -> None:
    note(f"Making the other side: an environment with {what}, once. torch is large, so this takes minutes.")
    shutil.rmtree(folder, ignore_errors=True)
    _new_environment(folder)
    python = str(folder / "bin" / "python")
    extras = f"[{','.join(_EXTRAS)}]" if _has_extras() else ""
    if torch:  # alone it is taken as a CPU build where the index has one, and nothing later draws in another
        _pip(python, "install", *torch, what=what)
    wanted = f"{source}{extras}" if isinstance(source, Path) else source.replace("optbench", f"optbench{extras}", 1)
    # A checkout stays one: its code goes on to change, and both sides are to have the same.
    editable = ["--editable"] if source == _source() and isinstance(source, Path) else []
    _pip(python, "install", *editable, wanted, *arguments, what=what)
    (folder / _STAMP).touch()


def _new_environment(folder: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True, capture_output=True)


def _has_extras() -> bool:
    return any(_canonical(name) == "schedulefree" for name in (line.partition("==")[0] for line in _installed()))


def _installed() -> list[str]:
    """What is installed here, optbench aside: `name==version`, by name."""
    found = {
        # A build for the CPU calls itself 2.13.0+cpu, which an index may not have.
        _canonical(one.metadata["Name"]): one.version.partition("+")[0]
        for one in importlib.metadata.distributions()
        if one.metadata["Name"]  # not of what a broken installation has left
    }
    return sorted(
        f"{name}=={version}" for name, version in found.items() if name not in ("optbench", "pip", "setuptools")
    )


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _folder(*parts: str) -> Path:
    """Where an environment is kept: its name is a digest of what it is made of."""
    key = hashlib.sha256(json.dumps([sys.version, *parts]).encode()).hexdigest()[:16]
    return cache_folder() / "environments" / key


def _pip(python: str, *arguments: str, what: str) -> None:
    command = [python, "-m", "pip", "--disable-pip-version-check", "--quiet", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = [line for line in done.stderr.strip().splitlines() if line.strip()]
        raise UsageError(
            f"--against {what}: the environment could not be made. pip says:\n{hidden(chr(10).join(lines[-8:]))}"
        )
