"""A verification as CI systems read it: JUnit XML, GitHub-flavoured markdown, annotations.

JUnit: one case per check, named after its variant, with the numbers in the message; one that is
undecided or did not run is a skipped case (with --strict it has failed already). Markdown: what a
job's summary or a comment on a pull request shows.
"""

import re
from xml.etree import ElementTree

from resdeploy.deploy.verification.checks.gate import Gate
from resdeploy.deploy.verification.reports.report import ROW_TITLES, VerifyReport, figures, row

# What XML 1.0 cannot hold at all, escaped or not.
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

_FLIPS_SHOWN = 20
_KINDS = ("lost", "changed", "gained")  # newly wrong images first
_SKIPPED = ("inconclusive", "not checked")


def junit(report: VerifyReport) -> str:
    """JUnit XML: one suite per variant, one case for its figures and one for each gate."""
    root = ElementTree.Element("testsuites", name="resdeploy verify")
    names = [variant.name for variant in report.variants]
    others = [gate for gate in report.gates if gate.variant not in names]
    for variant in report.variants:
        gates = [gate for gate in report.gates if gate.variant == variant.name]
        suite = _suite(root, report, variant.name, gates)
        case = _case(suite, report, variant.name, "figures")
        ElementTree.SubElement(case, "system-out").text = _xml(figures(variant))
    if others:
        _suite(root, report, others[0].variant, others)
    ElementTree.indent(root)
    text: str = ElementTree.tostring(root, encoding="unicode")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{text}\n'


def markdown(report: VerifyReport) -> str:
    """A summary for a pull request or a job: verdict, table, failed and inconclusive gates."""
    lines = [
        f"## resdeploy verify: {_cell(report.verdict)}",
        "",
        f"**{_cell(report.reason)}**",
        "",
        f"{_cell(report.subject)} ({_cell(report.manifest.model.architecture)}) compared with "
        f"{_cell(report.reference)}.",
        "",
        "| " + " | ".join(map(_cell, ROW_TITLES)) + " |",
        "|---|---|---|---:|---:|---:|---:|---|---:|---:|---:|",
        *("| " + " | ".join(map(_cell, row(v))) + " |" for v in report.variants),
        "",
    ]
    for verdict in ("fail", *_SKIPPED):
        chosen = [gate for gate in report.gates if gate.verdict == verdict]
        if chosen:
            lines += [f"**{verdict}**", ""]
            lines += [
                f"- {_cell(gate.variant)}, {gate.name}: {_cell(gate.sentence)}" for gate in chosen
            ]
            lines.append("")
    lines += [f"> {_cell(note)}" for note in report.notes]
    lines += _flips(report)
    return "\n".join(lines).rstrip() + "\n"


def annotations(report: VerifyReport) -> list[str]:
    """GitHub workflow commands: `::error` for a failed gate, `::warning` for an undecided one."""
    found = []
    for gate in report.gates:
        if gate.verdict == "pass":
            continue
        level = "error" if gate.verdict == "fail" else "warning"
        title = f"resdeploy {gate.variant} {gate.name}"
        found.append(f"::{level} title={_property(title)}::{_command(gate.sentence)}")
    return found


def _suite(
    root: ElementTree.Element, report: VerifyReport, name: str, gates: list[Gate]
) -> ElementTree.Element:
    failures = sum(gate.verdict == "fail" for gate in gates)
    skipped = sum(gate.verdict in _SKIPPED for gate in gates)
    has_figures = any(variant.name == name for variant in report.variants)
    suite = ElementTree.SubElement(
        root,
        "testsuite",
        name=_xml(f"{report.bundle.name} {name}"),
        tests=str(len(gates) + has_figures),
        failures=str(failures),
        skipped=str(skipped),
        errors="0",
    )
    titles: list[str] = []
    for gate in gates:
        # readers of JUnit take cases of one name for one: as-promised is checked twice
        again = titles.count(gate.name)
        titles.append(gate.name)
        title = f"{gate.name} ({again + 1})" if again else gate.name
        case = _case(suite, report, name, title)
        message = _xml(gate.sentence)
        if gate.verdict == "fail":
            ElementTree.SubElement(case, "failure", message=message, type=gate.verdict)
        elif gate.verdict in _SKIPPED:
            ElementTree.SubElement(case, "skipped", message=message)
        else:
            ElementTree.SubElement(case, "system-out").text = message
    return suite


def _case(
    suite: ElementTree.Element, report: VerifyReport, variant: str, name: str
) -> ElementTree.Element:
    classname = f"resdeploy.{report.bundle.name}.{variant}"
    return ElementTree.SubElement(suite, "testcase", classname=_xml(classname), name=_xml(name))


def _flips(report: VerifyReport) -> list[str]:
    """The images whose prediction changed, folded away."""
    evaluation, labels = report.evaluation, report.manifest.labels
    if evaluation is None or not labels:
        return []
    lines: list[str] = []
    for variant in report.variants:
        flips = sorted(variant.flips, key=lambda flip: _KINDS.index(flip.kind))
        if not flips:
            continue
        many = "" if len(flips) == 1 else "s"
        title = f"{_cell(variant.name)}: {len(flips)} changed prediction{many}"
        lines += ["", f"<details><summary>{title}</summary>", ""]
        lines += ["| image | reference | variant | |", "|---|---|---|---|"]
        for flip in flips[:_FLIPS_SHOWN]:
            was = f"{report.label(flip.expected)} {_percent(flip.expected_confidence)}"
            now = f"{report.label(flip.got)} {_percent(flip.got_confidence)}"
            path = str(evaluation.paths[flip.position])
            lines.append("| " + " | ".join(map(_cell, (path, was, now, flip.kind))) + " |")
        if len(flips) > _FLIPS_SHOWN:
            lines.append(f"| … and {len(flips) - _FLIPS_SHOWN} more | | | |")
        lines += ["", "</details>"]
    return lines


def _percent(confidence: float) -> str:
    """Empty where it is not known, as in a baseline."""
    return f"{confidence:.0%}" if confidence == confidence else ""


def _cell(text: object) -> str:
    """Text that can end neither a table cell nor a line, and is no HTML, link or emphasis."""
    plain = " ".join(str(text).split())
    return re.sub(r"([\\`*_\[\]|<>])", r"\\\1", plain).replace("&", "&amp;")


def _xml(text: str) -> str:
    return _NOT_XML.sub("\ufffd", text)


def _command(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _command(text).replace(":", "%3A").replace(",", "%2C")
