"""A night for machines: JUnit's XML, and the Markdown of a job's summary."""

import os
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from optbench.regress.findings import Answer
from optbench.regress.junit import junit
from optbench.regress.night import Against
from optbench.regress.summary import MOST_OF_JOB, append_to_job_summary, summary
from tests.hostile import NAMES
from tests.nights import every_answer, exact, finding, night

MISSING = Against(kind="stored", name="", state="missing", note="There is none yet: accept one.")
BESIDE = Against(kind="git", name="c435b48")


def cases(text: str) -> dict[str, ElementTree.Element]:
    return {case.attrib["name"]: case for case in ElementTree.fromstring(text).iter("testcase")}


def outcome(case: ElementTree.Element) -> str:
    return next((child.tag for child in case), "passed")


# JUnit


def test_each_metric_is_a_case_and_its_answer_is_what_became_of_it() -> None:
    found = cases(junit(night()))
    assert {name: outcome(case) for name, case in found.items()} == {
        "step time of adamw foreach": "passed",
        "step time of lion fused": "failure",
        "state bytes of adamw foreach": "failure",
        "state bytes of soap": "error",
        "state bytes of radam": "error",
        "step time of muon foreach": "skipped",
        "final loss bits of adamw foreach": "system-out",
        "step time of adam fused": "system-out",
        "state bytes of came": "skipped",
        "state bytes of adagrad": "skipped",
    }
    assert found["step time of lion fused"].attrib["classname"] == "optbench.quick.time"
    assert next(iter(found)) == "step time of lion fused", "the worst comes first"


def test_the_counts_are_those_of_the_cases() -> None:
    root = ElementTree.fromstring(junit(night()))
    (suite,) = root
    assert suite.attrib == {
        "name": "optbench.nightly",
        "tests": "10",
        "failures": "2",
        "errors": "2",
        "skipped": "3",
        "time": "754.200",
        "timestamp": "2026-11-29T03:17:00",
    }
    assert {**root.attrib, "timestamp": "2026-11-29T03:17:00"} == suite.attrib
    assert [child.tag for child in suite] == ["properties"] + ["testcase"] * 10


def test_a_failure_says_all_that_is_known() -> None:
    failure = cases(junit(night()))["step time of lion fused"].find("failure")
    assert failure is not None
    assert failure.attrib["message"] == (
        "Step time of lion fused is worse: 20 kernels before, 24 kernels now, ratio 1.200 [1.150, 1.250]; "
        "slower in 2 rounds: 1.190, 1.200."
    )
    assert (failure.text or "").splitlines() == [
        "before: 20 kernels",
        "now: 24 kernels",
        "ratio: 1.200",
        "interval at 95 %: 1.150 to 1.250",
        "the same code's ratio to itself: 1.004",
        "samples before: 19.9 kernels, 20 kernels, 20.1 kernels",
        "samples now: 21.9 kernels, 22 kernels, 22.1 kernels",
        "note: slower in 2 rounds: 1.190, 1.200",
    ]


def test_what_is_better_passes_and_says_so() -> None:
    said = cases(junit(night()))["step time of adam fused"].findtext("system-out") or ""
    assert said.startswith("Step time of adam fused is better: 20 kernels before, 18 kernels now, ratio 0.900")


def test_what_cannot_be_told_is_skipped_with_the_reason() -> None:
    skipped = cases(junit(night()))["step time of muon foreach"].find("skipped")
    assert skipped is not None
    assert skipped.attrib["message"] == "too noisy: its ratio to itself was 1.300"


def test_the_machine_and_the_versions_are_properties_and_the_name_of_the_host_is_not() -> None:
    text = junit(night())
    found = {one.attrib["name"]: one.attrib["value"] for one in ElementTree.fromstring(text).iter("property")}
    assert found["machine"] == "Abacus 3, 2 cores"
    assert found["against"] == "stored: 2026-11-20: the pins were raised"
    assert found["version of torch"] == "2.10.0"
    assert found["commit"] == "0123456789abcdef"
    assert found["exit code"] == "1"
    assert "secret-host" not in text


def test_a_baseline_that_is_not_there_is_an_error_of_its_own() -> None:
    text = junit(night([finding(Answer.NEW, old=None, ratio=None)], against=MISSING))
    found = cases(text)
    assert {name: outcome(case) for name, case in found.items()} == {
        "baseline": "error",
        "step time of adamw foreach": "skipped",
    }
    assert ElementTree.fromstring(text)[0].attrib["errors"] == "1"
    error = found["baseline"].find("error")
    assert error is not None
    assert error.attrib["message"] == "No usable baseline: There is none yet: accept one."


def test_names_of_any_kind_are_names_in_xml_that_can_be_read() -> None:
    names = [*NAMES, "half \ud800 of one", "\x00\x1b[0m\ufffe\uffff", "]]>", "&amp;"]
    text = junit(
        night(
            [finding(Answer.FAIL, subject=name, note=name) for name in names],
            suite=names[0],
            machine_words=names[2],
            against=Against(kind="git", name="\x07" + names[1]),
        )
    )
    root = ElementTree.fromstring(text.encode())
    read = {case.attrib["name"] for case in root.iter("testcase")}
    assert {
        f"step time of {name}" for name in ("=1+1", names[0], names[1], "]]>", "&amp;", "line\nbreak\r\nand\ttab")
    } <= read
    assert "step time of half  of one" in read
    assert {element.tag for element in root.iter()} == {
        *("testsuites", "testsuite", "properties", "property", "testcase", "failure"),
    }


def test_a_night_without_metrics_is_a_suite_without_cases() -> None:
    root = ElementTree.fromstring(junit(night([])))
    assert (root.attrib["tests"], len(cases(junit(night([]))))) == ("0", 0)


# The summary


@pytest.mark.parametrize(
    ("findings", "changes", "words"),
    [
        (None, {}, "Regression: 2 of 10 metrics are worse."),
        ([finding(Answer.FAIL)], {}, "Regression: 1 of 1 metric is worse."),
        ([finding(), finding(Answer.BROKEN)], {}, "Broken: 1 of 2 metrics could not be measured."),
        ([finding(), finding(Answer.UNKNOWN)], {}, "Unknown: 1 of 2 metrics cannot be told."),
        ([finding(), finding(Answer.CHANGED)], {}, "No regression: none of 2 metrics is worse."),
        ([finding(Answer.NEW)], {}, "Nothing could be compared: no metric is on both sides, of 1."),
        ([], {}, "Nothing was compared."),
        ([finding(Answer.NEW)], {"against": MISSING}, "No usable baseline: There is none yet: accept one."),
    ],
)
def test_the_first_line_is_the_answer(findings: list | None, changes: dict, words: str) -> None:
    assert summary(night(findings, **changes)).splitlines()[0] == f"## {words}"


def test_it_says_what_it_was_held_against_and_where() -> None:
    text = summary(night())
    assert "It was held against the stored baseline: 2026-11-20: the pins were raised. Suite quick." in text
    assert "Machine: Abacus 3, 2 cores; load 0.31 at the beginning and 1.2 at the end, took 13 min" in text
    assert "2 are worse, 1 could not be measured, 1 was held against nothing, 1 cannot be told" in text
    beside = summary(night(against=BESIDE))
    assert "It was held against the commit c435b48, measured beside it." in beside


def test_the_tables_come_worst_first() -> None:
    heads = re.findall(r"^### (.*)$", summary(night()), flags=re.MULTILINE)
    assert heads == [
        *("Worse: 2", "Could not be measured: 1", "Held against nothing: 1", "Cannot be told: 1"),
        *("Changed, and no worse: 1", "Better: 1", "New: 1", "No longer asked for: 1"),
    ]


def rows(text: str) -> list[list[str]]:
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def test_figures_are_in_their_units() -> None:
    findings = [
        exact(Answer.FAIL, old=1234567890.0, new=1234567894.0, ratio=1234567894 / 1234567890),
        exact(Answer.FAIL, figure="dispatched operations", old=41.0, new=42.0, ratio=42 / 41),
        exact(Answer.FAIL, figure="final loss", kind="loss", old=0.123456789, new=12.0, ratio=97.2),
        exact(Answer.CHANGED, figure="final loss bits", old=None, new=None, ratio=None),
        finding(Answer.FAIL, old=0.00123456, new=0.0015, ratio=1.215, is_beside=True),
        finding(Answer.NEW, subject="new one", old=None, new=20.0, ratio=None, low=None, high=None),
    ]
    found = {row[0]: row[1:5] for row in rows(summary(night(findings, against=BESIDE)))}
    assert found["state bytes of adamw foreach"] == ["1,234,567,890 B", "1,234,567,894 B", "1.000 (+4)", "-"]
    assert found["dispatched operations of adamw foreach"] == ["41", "42", "1.024 (+1)", "-"]
    assert found["final loss of adamw foreach"] == ["0.1235", "12", "97.2", "-"]
    assert found["final loss bits of adamw foreach"] == ["-", "-", "-", "-"]
    assert found["step time of adamw foreach"] == ["1.235 ms", "1.5 ms", "1.215 [1.060, 1.140]", "1.004"]
    assert found["step time of new one"][1] == "20 kernels", "what one side alone could time has no side beside it"
    (stored,) = [row for row in rows(summary(night([finding(Answer.FAIL)]))) if row[0].startswith("step")]
    assert stored[1:3] == ["20 kernels", "22 kernels"]


def many(count: int) -> list:
    names = [f"optimizer_{place:04} \N{BLACK STAR}" for place in range(count)]
    return [finding(Answer.FAIL, subject=name, ratio=1.0 + place / 1000) for place, name in enumerate(names)]


def test_of_many_the_worst_fifty_are_shown_and_the_others_counted() -> None:
    text = summary(night(many(120)))
    assert text.count("optimizer_") == 50
    assert "optimizer_0119" in text
    assert "optimizer_0069" not in text
    assert "70 more are worse, and left out here." in text


@pytest.mark.parametrize("limit", [0, 10, 300, 1000, 2000, 4000, 8000])
def test_it_is_never_longer_than_its_limit_in_bytes(limit: int) -> None:
    text = summary(night([*many(60), *every_answer()]), limit=limit)
    assert len(text.encode()) <= limit
    if limit >= 1000:
        assert text.startswith("## Regression: 62 of 70 metrics are worse.")
    if limit >= 2000:
        assert "optimizer_0059" in text, "the worst is the last to go"
        assert "left out here." in text


def test_no_name_is_markup_and_no_name_ends_a_row() -> None:
    names = [*NAMES, "half \ud800 of one"]
    findings = [finding(Answer.FAIL, subject=name, note=name) for name in names]
    text = summary(night(findings, suite=NAMES[0], machine_words=NAMES[7], against=Against(kind="git", name=NAMES[8])))
    assert "<script>" not in text
    assert "<img" not in text
    assert "](javascript" not in text
    assert "](http" not in text
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert len(table) == len(names) + 2
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in table} == {7}


# The summary of a job


def test_without_a_job_nothing_is_written(tmp_path: Path) -> None:
    assert append_to_job_summary("x", {}) is None
    assert append_to_job_summary("x", {"GITHUB_STEP_SUMMARY": ""}) is None
    assert list(tmp_path.iterdir()) == []


def test_it_is_appended_to_what_the_step_wrote(tmp_path: Path) -> None:
    path = tmp_path / "summary.md"
    environ = {"GITHUB_STEP_SUMMARY": str(path)}
    assert append_to_job_summary("first\n", environ) is None
    assert append_to_job_summary("## second \N{BLACK STAR}\ud800\n", environ) is None
    assert path.read_text(encoding="utf-8") == "first\n\n\n## second \N{BLACK STAR}?\n"


def test_what_the_file_holds_counts_towards_the_limit(tmp_path: Path) -> None:
    path = tmp_path / "summary.md"
    path.write_bytes(b"x" * (MOST_OF_JOB - 2000))
    text = "".join(f"| row {place} \N{BLACK STAR} |\n" for place in range(1000))
    assert append_to_job_summary(text, {"GITHUB_STEP_SUMMARY": str(path)}) is None
    written = path.read_bytes()[MOST_OF_JOB - 2000 :].decode()
    assert path.stat().st_size <= MOST_OF_JOB
    assert written.startswith("\n\n| row 0")
    assert written.endswith("|\n\nThe rest was left out: the summary of a job has no more room.\n")


def test_a_full_file_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "summary.md"
    path.write_bytes(b"x" * MOST_OF_JOB)
    said = append_to_job_summary("more", {"GITHUB_STEP_SUMMARY": str(path)})
    assert said == "The job summary was not written: its file holds 1,048,576 bytes, and GitHub takes 1,048,576."
    assert path.stat().st_size == MOST_OF_JOB


def test_a_file_that_cannot_be_written_is_a_warning(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name in (tmp_path, tmp_path / "pipe"):
        assert append_to_job_summary("x", {"GITHUB_STEP_SUMMARY": str(name)}) == (
            "The job summary was not written: GITHUB_STEP_SUMMARY names no file."
        )
    for name in (f"{tmp_path}/none/x", f"{tmp_path}/\0", f"{tmp_path}/{'x' * 5000}"):
        said = append_to_job_summary("x", {"GITHUB_STEP_SUMMARY": name})
        assert said is not None
        assert said.startswith("The job summary could not be written: ")
