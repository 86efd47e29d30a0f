"""The package as others get it: what it holds, what it needs, and that it works away from the checkout."""

import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
# Where each folder of the checkout lies once it is installed.
PACKAGES = {"optbench": "optbench", "tasks": "optbench/tasks", "conf": "optbench/conf"}

PYPROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT: dict[str, Any] = PYPROJECT["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
REQUIREMENTS = sorted({*PROJECT["dependencies"], *(need for extra in EXTRAS.values() for need in extra)})


@dataclass(frozen=True)
class Environment:
    """A Python environment with optbench in it, and the folder its modules come from."""

    bin: Path
    source: Path

    def run(self, program: str, *arguments: str, folder: Path) -> "subprocess.CompletedProcess[str]":
        environ = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        return subprocess.run(
            [self.bin / program, *arguments],
            cwd=folder,
            env=environ,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )


def pip(*arguments: str | Path) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from a copy of the checkout, where an earlier build cannot slip files in."""
    copy = tmp_path_factory.mktemp("source") / "optbench"
    clutter = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "build", "dist", "results", "wandb", "outputs")
    shutil.copytree(ROOT, copy, ignore=clutter)
    (copy / "results/sweep").mkdir(parents=True)
    (copy / "results/sweep/trial.yaml").touch()
    dist = tmp_path_factory.mktemp("dist")
    # torch brings setuptools, so that this needs no network.
    pip("wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", dist, copy)
    (path,) = dist.iterdir()
    return path


@pytest.fixture(scope="module")
def contents(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


@pytest.fixture(scope="module")
def fresh(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """A new environment that holds the wheel, and reads all else from the one that runs the tests."""
    folder = tmp_path_factory.mktemp("fresh")
    venv.create(folder, symlinks=True)
    python = folder / "bin/python"
    pip("--python", python, "install", "--quiet", "--no-deps", "--no-index", wheel)
    paths = {"base": str(folder), "platbase": str(folder)}
    site_packages = Path(sysconfig.get_path("purelib", "venv", paths))
    # Only the folder: its own .pth files, such as the one of an editable optbench, are not read.
    borrowed = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (site_packages / "borrowed.pth").write_text("\n".join(sorted(borrowed)))
    return Environment(folder / "bin", site_packages / "optbench")


@pytest.fixture(params=["wheel", pytest.param("editable", marks=pytest.mark.verify)])
def environment(request: pytest.FixtureRequest) -> Environment:
    if request.param == "editable":
        return Environment(Path(sys.executable).parent, ROOT / "optbench")
    fresh: Environment = request.getfixturevalue("fresh")
    return fresh


def installed(pattern: str) -> set[str]:
    """The files of the checkout that match, named as they are once installed."""
    return {
        f"{target}/{path.relative_to(ROOT / folder).as_posix()}"
        for folder, target in PACKAGES.items()
        for path in (ROOT / folder).rglob(pattern)
        if path.is_file()
    }


@pytest.mark.packaging
def test_the_wheel_holds_every_module_every_config_and_the_typing_marker(contents: set[str]) -> None:
    expected = set().union(*map(installed, ("*.py", "*.yaml", "*.j2", "*.css", "*.js"))) | {"optbench/py.typed"}
    assert {"optbench/conf/config.yaml", "optbench/templates/report.css"} <= expected
    assert sorted(expected - contents) == []


@pytest.mark.packaging
def test_the_wheel_holds_one_package_and_nothing_from_other_folders(contents: set[str]) -> None:
    modules = {name for name in contents if ".dist-info/" not in name}
    assert {name.split("/")[0] for name in modules} == {"optbench"}
    assert sorted(modules - installed("*")) == []


@pytest.mark.packaging
def test_optbench_is_imported_from_where_it_was_installed(environment: Environment, tmp_path: Path) -> None:
    code = "import optbench, optbench.tasks, optbench.conf; print(optbench.__file__)"
    done = environment.run("python", "-c", code, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).parent.samefile(environment.source)


@pytest.mark.packaging
def test_the_command_lists_the_optimizers_away_from_the_checkout(environment: Environment, tmp_path: Path) -> None:
    done = environment.run("optbench", "list", "optimizers", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "adamw" in done.stdout


@pytest.mark.packaging
def test_the_command_runs_a_trial_away_from_the_checkout(environment: Environment, tmp_path: Path) -> None:
    results = tmp_path / "results"
    words = ["task=quadratic_deep", "optimizer=sgd", "budget.num_steps=7", "cost.seconds=0.1", f"results={results}"]
    done = environment.run("optbench", "run", *words, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    (trial,) = results.glob("*/trials/*.json")
    assert json.loads(trial.read_text())
    done = environment.run("optbench", "report", str(results), folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "</html>" in (results / "report" / "report.html").read_text()


def test_the_development_environment_is_an_editable_installation_of_this_checkout() -> None:
    # The build leaves an egg-info beside the sources, which is found as well and knows no address.
    found = importlib.metadata.distributions(name="optbench")
    urls = [json.loads(url) for each in found if (url := each.read_text("direct_url.json"))]
    assert urls == [{"dir_info": {"editable": True}, "url": ROOT.as_uri()}]


def test_every_folder_with_modules_is_a_listed_package() -> None:
    folders = {name.rpartition("/")[0].replace("/", ".") for name in installed("*.py")}
    assert folders == set(PYPROJECT["tool"]["setuptools"]["packages"])


def test_the_version_is_the_same_wherever_it_stands() -> None:
    headings = re.findall(r"^## \[?v?(\d[\w.]*)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert PROJECT["version"] == importlib.metadata.version("optbench") == headings[0]


@pytest.mark.parametrize("requirement", REQUIREMENTS)
def test_every_dependency_has_a_pin_within_its_range(requirement: str) -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [Requirement(line) for text in lines if (line := text.partition("#")[0].strip())]
    need = Requirement(requirement)
    (exact,) = {canonicalize_name(pin.name): pin.specifier for pin in pins}[canonicalize_name(need.name)]
    assert exact.operator == "=="
    assert need.specifier.contains(exact.version, prereleases=True)
