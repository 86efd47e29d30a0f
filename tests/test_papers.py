"""Every file in conf/paper: sound, sourced, and with trials for each of its cells."""

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from optbench.compose import Composer
from optbench.curve_claims import matching
from optbench.errors import UsageError
from optbench.papers import shelf
from optbench.papers.claims import checks_of
from optbench.papers.paper import Band, Check, Measure, Paper
from optbench.papers.reading import read
from optbench.papers.running import Typed, overrides_of
from optbench.trial import Trial

CONF = Path(__file__).parent.parent / "conf"
NAMES = shelf.names()
CLAIMS = yaml.safe_load((CONF / "claims.yaml").read_text())["claims"]


def typed(*overrides: str, is_quick: bool = False) -> Typed:
    return Typed(overrides=overrides, is_quick=is_quick, command=(), allowed=())


def checks(paper: Paper) -> Iterator[tuple[str, Check]]:
    for table in paper.tables:
        for cell in table.cells:
            yield f"{table.name}: {cell.row}, {cell.column}", cell.check
    for claim in paper.claims:
        yield f"{claim.id}: {claim.text}", claim.check


def measures(check: Check) -> Iterator[Measure]:
    if check.measure.compute is None:
        yield check.measure
        if check.measure.against is not None:
            yield check.measure.against


@pytest.fixture(scope="module")
def planned(composer: Composer) -> dict[str, list[dict[str, Any]]]:
    """The trials that each paper asks for, as records without results."""
    found: dict[str, list[dict[str, Any]]] = {}
    for name in NAMES:
        configs = [
            config
            for sweep in shelf.find(name).sweeps
            for config in composer.configs(overrides_of(sweep, typed()), one_trial=False)
        ]
        found[name] = [{"config": Trial.from_config(config).config} for config in configs]
    return found


@pytest.mark.parametrize("name", NAMES)
def test_a_paper_is_named_like_its_file_and_opens_with_what_it_is_and_how_to_run_it(name: str) -> None:
    text = (CONF / "paper" / f"{name}.yaml").read_text()
    comment = [line.removeprefix("#").strip() for line in text.splitlines() if line.startswith("#")]
    assert shelf.find(name).name == name
    assert comment[0].endswith(".")
    assert f"Run: optbench reproduce {name}" in " ".join(comment)
    assert re.search(r"https?://", " ".join(comment))
    without = re.sub(r"#.*", "", text)
    exponents = [int(found) for found in re.findall(r"\b\d+(?:\.\d+)?[eE]([-+]?\d+)\b", without)]
    assert all(exponent < -10 for exponent in exponents), "write 0.001, not 1e-3"


@pytest.mark.parametrize("name", NAMES)
def test_every_cell_and_claim_has_trials_in_the_papers_sweeps(name: str, planned: dict[str, Any]) -> None:
    for what, check in checks(shelf.find(name)):
        for measure in measures(check):
            assert matching(planned[name], measure.where), f"{what}: no trial has {dict(measure.where)}"


@pytest.mark.parametrize("name", NAMES)
def test_a_plain_cell_is_of_one_trial_for_each_seed(name: str, planned: dict[str, Any]) -> None:
    """Two settings in one cell would be averaged without a word; the same setting at another budget may be."""
    for what, check in checks(shelf.find(name)):
        for measure in measures(check):
            if measure.reduction is None:
                own = matching(planned[name], measure.where)
                settings = {
                    repr({key: value for key, value in record["config"].items() if key not in ("seed", "budget")})
                    for record in own
                }
                assert len(settings) <= 1, f"{what}: {len(settings)} settings"


@pytest.mark.parametrize("name", NAMES)
def test_a_tolerance_is_no_less_than_what_the_source_itself_could_tell(name: str) -> None:
    """A mean over three seeds and more is known to its standard error."""
    for what, check in checks(shelf.find(name)):
        if check.spread is not None and check.band is not None and not check.band.is_one_sided:
            assert (check.band.high - check.band.low) / 2 >= check.spread / math.sqrt(3), what


@pytest.mark.parametrize("name", NAMES)
def test_a_paper_can_fail(name: str) -> None:
    judged = [check for table in shelf.find(name).tables for check in (cell.check for cell in table.cells)]
    assert any(check.is_judged for check in judged)


@pytest.mark.parametrize("name", NAMES)
def test_a_quick_subset_is_a_part_of_the_whole_or_absent(name: str) -> None:
    paper = shelf.find(name)
    has_trials = any(sweep.quick is not None for sweep in paper.sweeps)
    is_computed = any(cell.check.measure.compute for table in paper.tables for cell in table.cells)
    assert (paper.quick_minutes is not None) == (has_trials or is_computed)


def test_every_claim_that_a_paper_checks_is_in_the_list() -> None:
    for name in NAMES:
        assert set(checks_of(shelf.find(name))) <= CLAIMS.keys(), name


def test_the_list_of_claims_is_complete_and_in_order() -> None:
    assert list(CLAIMS) == [f"C{number:02}" for number in range(1, 53)]
    assert all(set(said) == {"text", "by"} for said in CLAIMS.values())


def test_every_claim_is_checked_somewhere() -> None:
    checked = {claim_id for name in NAMES for claim_id in checks_of(shelf.find(name))}
    assert CLAIMS.keys() - checked == set()


# Mistakes in a file.

SOUND = """
name: one
title: one
claim: one
source: {authors: A, title: T, year: 2000, url: U, where: W}
cost: {minutes: 1.0, machine: two cores}
sweeps: [{overrides: [task=quadratic]}]
tables:
  - name: losses
    title: losses
    because: b
    figure: test_loss
    rows: {sgd: {where: {optimizer.name: sgd}}}
    columns: {0.1: {where: {optimizer.lr: 0.1}}}
    published: {sgd: {0.1: {value: 1.0, tolerance: 0.1}}}
"""


def test_a_sound_file_is_read() -> None:
    (cell,) = read(SOUND, where="one").tables[0].cells
    assert (cell.row, cell.column) == ("sgd", "0.1")
    assert dict(cell.check.measure.where) == {"optimizer.name": "sgd", "optimizer.lr": 0.1}


@pytest.mark.parametrize(
    ("right", "wrong", "message"),
    [
        ("title: losses", "titel: losses", "Did you mean 'title'?"),
        ("tolerance: 0.1", "tolerence: 0.1", "Did you mean 'tolerance'?"),
        (", tolerance: 0.1", "", "one is missing"),
        ("tolerance: 0.1", "tolerance: -0.1", "from 0 on"),
        ("tolerance: 0.1", "tolerance: 0.1, relative_tolerance: 0.1", "only one of them"),
        ("tolerance: 0.1", "at_least: 2.0, at_most: 1.0", "nothing would do"),
        ("value: 1.0", "value: .nan", "say diverges: true"),
        ("because: b", "because: b\n    because: c", "given twice"),
        ("because: b", "because: b\n    origin: mine", "Allowed: ours, published, theory"),
        ("because: b", "because: ''", "because is missing"),
        ("published: {sgd:", "published: {sdg:", "Did you mean 'sgd'?"),
        ("{0.1: {value", "{0.2: {value", "unknown key '0.2'"),
        ("figure: test_loss", "figure: test_loss\n    compute: ratio", "either figure"),
        ("figure: test_loss", "figure: test_loss\n    at: lats", "Did you mean 'last'?"),
        ("figure: test_loss", "figure: test_loss\n    reduce: {kind: bestat, along: seed}", "Did you mean 'best_at'?"),
        ("figure: test_loss", "figure: test_loss\n    compare: ratio", "go together"),
        ("year: 2000", "year: '2000'", "expected int"),
        ("cost: {minutes", "cost: {minuts", "Did you mean 'minutes'?"),
        ("[{overrides: [task=quadratic]}]", "[{quick: []}]", "overrides is missing"),
        ("name: one", "name: a b", "make the name of a file"),
        ("tables:", "tables: [", "no valid YAML"),
        ("value: 1.0", "value: [1.0]", "expected float or str or null"),
    ],
)
def test_a_mistake_in_a_papers_file_is_named_with_its_place(right: str, wrong: str, message: str) -> None:
    assert right in SOUND
    with pytest.raises(UsageError) as error:
        read(SOUND.replace(right, wrong, 1), where="conf/paper/one.yaml")
    assert message in str(error.value)
    assert "conf/paper/one.yaml" in str(error.value)


def test_an_inner_bound_takes_the_place_of_an_outer_tolerance_and_the_other_way_round() -> None:
    inner = read(
        SOUND.replace("tolerance: 0.1}", "at_least: 0.5}").replace("because: b", "because: b\n    tolerance: 3.0"),
        where="one",
    )
    assert inner.tables[0].cells[0].check.band == Band(low=0.5, high=math.inf)
    outer = read(SOUND.replace("because: b", "because: b\n    at_least: 0.5"), where="one")
    assert outer.tables[0].cells[0].check.band == Band(low=0.9, high=1.1)


@pytest.mark.parametrize("fields", ["at_most: 2.0", "diverges: true", "tolerance: 0.1"])
def test_what_is_not_to_be_judged_is_not(fields: str) -> None:
    (cell,) = read(SOUND.replace("tolerance: 0.1", f"{fields}, judged: false"), where="one").tables[0].cells
    assert not cell.check.is_judged


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("kind: pie", "Allowed: curves, heat_map, lines"),
        ("kind: lines, best: mx", "Allowed: max, min"),
        ("kind: lines, log_x: maybe", "expected bool"),
        ("kind: lines, table: loses", "Did you mean 'losses'?"),
        ("kind: curves, table: losses, points: {sgd: [1, 2]}", "expected a list"),
        ("kind: curves, table: losses, points: {sgd: [[a, 2]]}", "expected float"),
        ("kind: curves, table: losses, points: {sdg: [[1, 2]]}", "Did you mean 'sgd'?"),
        ("kind: heat_map, by: optimizer.name, z: test_loss, slope: {sgd: x}", "expected float"),
        ("kind: heat_map", "z is missing"),
    ],
)
def test_a_mistake_in_a_figure_is_named(wrong: str, message: str) -> None:
    figure = f"figures: [{{name: one, title: one, x: step, y: test_loss, {wrong}}}]"
    with pytest.raises(UsageError) as error:
        read(f"{SOUND}{figure}\n", where="one")
    assert message in str(error.value)


def test_what_is_typed_takes_the_place_of_the_papers_own() -> None:
    (sweep,) = read(
        SOUND.replace(
            "[task=quadratic]", "[task=quadratic, optimizer.lr=0.1, 'seed=range(3)'], quick: ['seed=range(2)']"
        ),
        where="one",
    ).sweeps
    assert overrides_of(sweep, typed()) == ["task=quadratic", "optimizer.lr=0.1", "seed=range(3)"]
    assert overrides_of(sweep, typed(is_quick=True)) == ["task=quadratic", "optimizer.lr=0.1", "seed=range(2)"]
    assert overrides_of(sweep, typed("seed=7", is_quick=True)) == ["task=quadratic", "optimizer.lr=0.1", "seed=7"]
    assert overrides_of(sweep, typed("+executor.x=1"))[-1] == "+executor.x=1"


def test_names_of_papers_are_told_from_overrides() -> None:
    assert shelf.split(["a", "paper=b,c", "seed=1", "+x=1", "~logger", "a"]) == (
        ["a", "b", "c"],
        ["seed=1", "+x=1", "~logger"],
    )
    assert shelf.split(["paper=[a,b]"]) == (["a", "b"], [])
    with pytest.raises(UsageError, match="no name of a paper"):
        shelf.split(["paper="])
    with pytest.raises(UsageError, match="Did you mean 'quadratics'"):
        shelf.find("quadratic")
