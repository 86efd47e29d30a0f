"""A night as JUnit's XML, which continuous integration shows: a case for each metric."""

import re
from collections.abc import Iterator, Sequence
from typing import Any
from xml.etree import ElementTree

from optbench.regress import words
from optbench.regress.findings import Answer, Finding, worst_first
from optbench.regress.night import Night

SUITE = "optbench.nightly"
BASELINE = "baseline"
# What XML 1.0 cannot hold, not even as a reference: control characters, halves of a character, and two others.
_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_SKIPPED = (Answer.UNKNOWN, Answer.NEW, Answer.MISSING)
_NOTED = (Answer.CHANGED, Answer.IMPROVED)  # they pass, and what came of them is said


def junit(night: Night) -> str:
    """The file: what is worse failed, what could not be measured is an error, what cannot be told is skipped.

    Where the stored baseline is not usable, that is an error of its own, the case `baseline`.
    """
    cases = [_case(finding, night) for finding in worst_first(night.findings)]
    if night.against.state != "there":
        cases.insert(0, _baseline(night))
    numbers: dict[str, Any] = {
        "tests": len(cases),
        "failures": _number(cases, "failure"),
        "errors": _number(cases, "error"),
        "skipped": _number(cases, "skipped"),
    }
    root = _element("testsuites", name=SUITE, **numbers, time=f"{night.seconds:.3f}")
    suite = ElementTree.SubElement(root, "testsuite", dict(root.attrib))
    suite.set("timestamp", _allowed(night.started.removesuffix("Z")))  # JUnit's schema has no place for a zone
    properties = ElementTree.SubElement(suite, "properties")
    for name, value in _properties(night):
        properties.append(_element("property", name=name, value=value))
    suite.extend(cases)
    ElementTree.indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ElementTree.tostring(root, encoding="unicode")}\n'


def _case(finding: Finding, night: Night) -> ElementTree.Element:
    case = _element("testcase", classname=f"optbench.{night.suite}.{finding.kind}", name=finding.name)
    message = words.sentence(finding)
    if finding.answer is Answer.FAIL:
        case.append(_element("failure", _text(finding), message=message, type="regression"))
    elif finding.answer in (Answer.BROKEN, Answer.UNCOMPARED):
        case.append(_element("error", _text(finding), message=message, type="broken"))
    elif finding.answer in _SKIPPED:
        case.append(_element("skipped", message=finding.note or message))
    elif finding.answer in _NOTED:
        case.append(_element("system-out", f"{message}\n{_text(finding)}"))
    return case


def _baseline(night: Night) -> ElementTree.Element:
    case = _element("testcase", classname=f"optbench.{night.suite}", name=BASELINE)
    note = words.baseline_note(night.against)
    case.append(_element("error", note, message=words.headline(night), type=f"baseline {night.against.state}"))
    return case


def _text(finding: Finding) -> str:
    """All that is known of it, a line each."""
    unit = words.unit_of(finding)

    def samples(values: Sequence[float | None]) -> str:
        return ", ".join(words.number(value, unit) for value in values) or words.NOTHING

    lines = {
        "before": words.number(finding.old, unit),
        "now": words.number(finding.new, unit),
        "ratio": words.ratio_number(finding.ratio),
        "interval at 95 %": f"{words.ratio_number(finding.low)} to {words.ratio_number(finding.high)}",
        "the same code's ratio to itself": words.ratio_number(finding.control),
        "samples before": samples(finding.old_samples),
        "samples now": samples(finding.new_samples),
        "note": finding.note or words.NOTHING,
    }
    return "\n".join(f"{name}: {value}" for name, value in lines.items())


def _properties(night: Night) -> Iterator[tuple[str, str]]:
    """What the figures depend on, without the name of the host."""
    yield "suite", night.suite
    yield "suite digest", night.digest
    yield "started", night.started
    yield "machine", night.machine_words
    yield "load", words.load(night)
    yield "against", f"{night.against.kind}: {night.against.name}"
    yield "baseline", night.against.state
    environment = night.readings.environment
    for name in ("python", "device", "cuda", "commit", "modified"):
        if environment.get(name) is not None:
            yield name, str(environment[name])
    packages = environment.get("packages")
    for name, version in packages.items() if isinstance(packages, dict) else ():
        yield f"version of {name}", str(version)
    yield "exit code", str(night.exit_code)


def _element(tag: str, text: str = "", **attributes: Any) -> ElementTree.Element:
    """An element whose text and attributes XML can hold."""
    element = ElementTree.Element(tag, {name: _allowed(str(value)) for name, value in attributes.items()})
    element.text = _allowed(text) or None
    return element


def _allowed(text: str) -> str:
    return _FORBIDDEN.sub("", text)


def _number(cases: Sequence[ElementTree.Element], tag: str) -> int:
    return sum(case.find(tag) is not None for case in cases)
