"""Which Hydra the tests are run on: `make next` runs some of them on the next version, in place of that of `.venv`."""

import os
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import hydra
import omegaconf
import pytest
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from tests.test_packaging import PROJECT

ROOT = Path(__file__).parent.parent
NAMES = {"hydra-core": hydra, "omegaconf": omegaconf}


def pins(file: str) -> dict[str, str]:
    return dict(re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / file).read_text(), re.MULTILINE))


TESTED = pins(os.environ.get("OPTBENCH_TESTED_PINS", "constraints.txt"))


@pytest.mark.parametrize("name", NAMES)
def test_the_tests_run_on_the_version_that_is_pinned_for_them(name: str) -> None:
    assert NAMES[name].__version__ == version(name) == TESTED[name]


def test_so_do_the_processes_that_they_start(tmp_path: Path) -> None:
    script = "import hydra, omegaconf; print(hydra.__version__, omegaconf.__version__)"
    command = [sys.executable, "-c", script]
    found = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path).stdout
    assert found.split() == [TESTED[name] for name in NAMES]


@pytest.mark.parametrize("file", ["constraints.txt", "constraints-next.txt"])
def test_the_package_allows_what_is_tested(file: str) -> None:
    allowed = {re.split(r"[<>=]", line)[0]: line for line in PROJECT["dependencies"]}
    for name in NAMES:
        assert SpecifierSet(allowed[name].removeprefix(name)).contains(pins(file)[name], prereleases=True)


def test_the_next_version_is_a_later_one() -> None:
    later, present = pins("constraints-next.txt"), pins("constraints.txt")
    assert all(Version(later[name]) > Version(present[name]) for name in NAMES)
