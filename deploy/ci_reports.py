"""A verification as CI systems read it: JUnit XML, GitHub-flavoured markdown, annotations.

JUnit: one case per gate, named after its variant, with the numbers in the message; an inconclusive
gate is a skipped case, or a failure under --strict. Markdown: what a job summary shows.
"""

import re
from xml.etree import ElementTree

from resdeploy.deploy.gate import Gate
from resdeploy.deploy.verify_report import VerifyReport, figures, row

# What XML 1.0 cannot hold at all, escaped or not.
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

_FLIPS_SHOWN = 20


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
    """A summary for a pull request or a job: verdict, table, what failed and why."""
    lines = [
        f"## resdeploy verify: {_cell(report.verdict)}",
        "",
        f"`{_code(report.bundle)}` ({_cell(report.manifest.model.architecture)}) compared with "
        f"{_cell(report.reference)}.",
        "",
        "| variant | backend | verdict | images | top-1 % | drop (95 % interval) | agreement % "
        "| SQNR dB | max \\|Δ\\| |",
        "|---|---|---|---:|---:|---:|---:|---:|---:|",
        *("| " + " | ".join(map(_cell, row(v))) + " |" for v in report.variants),
        "",
    ]
    for verdict in ("fail", "inconclusive"):
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
        level = "error" if _fails(report, gate) else "warning"
        title = f"resdeploy {gate.variant} {gate.name}"
        found.append(f"::{level} title={_property(title)}::{_command(gate.sentence)}")
    return found


def _suite(
    root: ElementTree.Element, report: VerifyReport, name: str, gates: list[Gate]
) -> ElementTree.Element:
    failures = sum(_fails(report, gate) for gate in gates)
    skipped = sum(gate.verdict == "inconclusive" for gate in gates) - sum(
        gate.verdict == "inconclusive" and _fails(report, gate) for gate in gates
    )
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
    for gate in gates:
        case = _case(suite, report, name, gate.name)
        message = _xml(gate.sentence)
        if _fails(report, gate):
            ElementTree.SubElement(case, "failure", message=message, type=gate.verdict)
        elif gate.verdict == "inconclusive":
            ElementTree.SubElement(case, "skipped", message=message)
        else:
            ElementTree.SubElement(case, "system-out").text = message
    return suite


def _case(
    suite: ElementTree.Element, report: VerifyReport, variant: str, name: str
) -> ElementTree.Element:
    classname = f"resdeploy.{report.bundle.name}.{variant}"
    return ElementTree.SubElement(suite, "testcase", classname=_xml(classname), name=_xml(name))


def _fails(report: VerifyReport, gate: Gate) -> bool:
    return gate.verdict == "fail" or (report.strict and gate.verdict == "inconclusive")


def _flips(report: VerifyReport) -> list[str]:
    """The pictures answered differently, folded away."""
    evaluation, labels = report.evaluation, report.manifest.labels
    if evaluation is None or not labels:
        return []
    lines: list[str] = []
    for variant in report.variants:
        flips = variant.accuracy.flips
        if not flips:
            continue
        title = f"{_cell(variant.name)}: {len(flips)} answered differently"
        lines += ["", f"<details><summary>{title}</summary>", ""]
        lines += ["| picture | was | is | |", "|---|---|---|---|"]
        for flip in flips[:_FLIPS_SHOWN]:
            was = f"{labels[flip.expected]} {flip.expected_confidence:.0%}"
            now = f"{labels[flip.got]} {flip.got_confidence:.0%}"
            path = str(evaluation.paths[flip.position])
            lines.append("| " + " | ".join(map(_cell, (path, was, now, flip.kind))) + " |")
        if len(flips) > _FLIPS_SHOWN:
            lines.append(f"| … and {len(flips) - _FLIPS_SHOWN} more | | | |")
        lines += ["", "</details>"]
    return lines


def _cell(text: object) -> str:
    """Text that can end neither a table cell nor a line, and is no HTML, link or emphasis."""
    plain = " ".join(str(text).split())
    return re.sub(r"([\\`*_\[\]|<>])", r"\\\1", plain).replace("&", "&amp;")


def _code(text: object) -> str:
    return " ".join(str(text).split()).replace("`", "'")


def _xml(text: str) -> str:
    return _NOT_XML.sub("\ufffd", text)


def _command(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _command(text).replace(":", "%3A").replace(",", "%2C")
