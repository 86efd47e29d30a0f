"""Every YAML in conf/: described, named, sourced, and composable by the command that it gives."""

import re
import shlex
from pathlib import Path

import pytest
import yaml

from optbench.catalogue import GROUPS, PAPER, SUITE, entries
from optbench.compose import Composer
from optbench.trial import Trial

CONF = Path(__file__).parent.parent / "conf"
FILES = sorted(path for group in GROUPS for path in (CONF / group).rglob("*.yaml"))
SOURCED = ("optimizer", "param_groups", "task", "data", "schedule")


def comment(path: Path) -> list[str]:
    lines = []
    for line in path.read_text().splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.removeprefix("#").strip())
    return [line for line in lines if not line.startswith("@")]


def commands(path: Path) -> list[str]:
    _, found, command = " ".join(comment(path)).partition("Run: ")
    return [command] if found else []


def test_every_group_has_files_and_every_folder_is_a_group() -> None:
    folders = {path.name for path in CONF.iterdir() if path.is_dir() and not path.name.startswith("__")}
    assert folders == {*GROUPS, PAPER, SUITE, "hydra"}
    assert all(entries(group) for group in (*GROUPS, PAPER, SUITE))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(CONF)))
def test_a_file_opens_with_what_it_is_and_how_to_run_it(path: Path) -> None:
    first, *_ = comment(path)
    assert first.endswith((".", "?")), "the first line is a sentence: `optbench list` shows it"
    assert commands(path), "it says `Run: optbench ...`"


@pytest.mark.parametrize(
    "path",
    [path for path in FILES if path.relative_to(CONF).parts[0] in SOURCED],
    ids=lambda path: str(path.relative_to(CONF)),
)
def test_a_file_gives_its_source(path: Path) -> None:
    text = " ".join(comment(path))
    assert re.search(r"https?://|PyTorch|\(\d{4}\)|digits", text)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(CONF)))
def test_the_command_in_a_file_makes_sound_trials(path: Path, composer: Composer) -> None:
    for command in commands(path):
        program, verb, *overrides = shlex.split(command)
        assert program == "optbench"
        assert verb in ("sweep", "cost", "fit")
        trials = [Trial.from_config(config) for config in composer.configs(overrides, one_trial=False)]
        assert trials


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(CONF)))
def test_a_component_is_named_like_its_file(path: Path) -> None:
    config = yaml.safe_load(path.read_text()) or {}
    node = config.get(path.relative_to(CONF).parts[0], config)
    if "_target_" in node and path.stem != "custom":  # which is named like the class that it gets
        group = next(parent.name for parent in path.parents if parent.parent == CONF)
        assert node["name"] == str(path.relative_to(CONF / group).with_suffix(""))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(CONF)))
def test_numbers_are_written_out(path: Path) -> None:
    text = re.sub(r"#.*", "", path.read_text())
    exponents = [int(found) for found in re.findall(r"\b\d+(?:\.\d+)?[eE]([-+]?\d+)\b", text)]
    assert all(exponent < -10 for exponent in exponents), "write 0.001, not 1e-3"


def test_a_key_of_the_primary_config_is_known_to_a_trial(composer: Composer) -> None:
    (config,) = composer.configs([], one_trial=True)
    assert Trial.from_config(config).config["seed"] == 0
