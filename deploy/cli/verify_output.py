"""What `resdeploy verify` prints (table, checks, closing line) and the files it writes."""

import os
import shlex
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from resdeploy.deploy.cli.output import (
    folded_lines,
    is_terminal,
    print_table,
    print_what_fits,
    say,
    write,
)
from resdeploy.deploy.errors import shown
from resdeploy.deploy.optional import needs

if TYPE_CHECKING:
    from resdeploy.deploy.verification.checks.gate import Gate, Outcome
    from resdeploy.deploy.verification.explain import Explanation
    from resdeploy.deploy.verification.reports.report import VerifyReport

# columns of the table, from the one that a narrow terminal drops last
_IMPORTANCE = (
    "drop (95 % interval)", "against", "top-1 %", "counted", "images", "agreement %", "SQNR dB",
    "max |Δ|", "backend",
)  # fmt: skip
_INDENT = 13  # behind the verdict of a check
_STYLES = {
    "pass": "green", "inconclusive": "yellow", "not checked": "yellow", "fail": "bold red",
}  # fmt: skip
_COLOURS = {"pass": "green", "inconclusive": "yellow", "not checked": "yellow", "fail": "red"}


@dataclass(frozen=True)
class Outputs:
    """What is written besides the table, and where."""

    bundle: Path
    baseline: Path | None
    save_baseline: Path | None
    ratchet: bool
    junit: Path | None
    markdown: Path | None
    html: Path | None
    record: Path | None
    as_json: bool
    wide: bool

    def check(self, *, has_images: bool) -> None:
        """Refuse what contradicts itself or cannot be written, before minutes of work."""
        from resdeploy.deploy.files import check_writable

        if self.ratchet and self.baseline is None:
            raise click.UsageError("--update-baseline-if-better needs --baseline FILE")
        if self.save_baseline is not None and not has_images:
            raise click.UsageError("--save-baseline needs images: add --data DIR")
        if self.save_baseline is not None and self.save_baseline == self.baseline:
            raise click.UsageError(
                "--baseline and --save-baseline name the same file, so a worse result would "
                "replace it: use --update-baseline-if-better"
            )
        if self.html is not None:
            with needs("an HTML report"):  # before the first image; the page imports them again
                import jinja2  # noqa: F401 - only whether it is there
                import matplotlib  # noqa: F401 - as above
        raised = self.baseline if self.ratchet else None
        written = (raised, self.save_baseline, self.junit, self.markdown, self.html, self.record)
        check_writable(*written)
        _check_not_of_the_bundle(self.bundle, [path for path in written if path is not None])
        if self.record is not None:
            from resdeploy.deploy.verification.reports.history import check_history

            check_history(self.record)

    def write(self, report: "VerifyReport") -> Path | None:
        """Write the reports and, where that is due, the baseline; returns where it was saved."""
        _write_reports(report, self.junit, self.markdown, self.html)
        if self.record is not None:
            from resdeploy.deploy.verification.reports.history import append_line, history_line

            append_line(self.record, history_line(report))
        return _save_baseline(report, self.save_baseline, self.ratchet)


def _check_not_of_the_bundle(path: Path, written: Sequence[Path]) -> None:
    """A report in the place of the graph or the manifest would destroy what is verified."""
    from resdeploy.deploy.bundle.bundle import read_bundle
    from resdeploy.deploy.errors import InputError

    if not any(report.is_file() for report in written):
        return
    bundle = read_bundle(path) if path.is_dir() else None
    for report in written:
        if report.resolve() == path.resolve() or (bundle is not None and bundle.owns(report)):
            raise InputError(f"{report}: is a file of the bundle: give the report another name")


def _write_reports(
    report: "VerifyReport", junit: Path | None, markdown: Path | None, html: Path | None
) -> None:
    from resdeploy.deploy.files import write_text
    from resdeploy.deploy.verification.reports import ci_report as ci_reports

    if junit is not None:
        write_text(junit, ci_reports.junit(report))
    if markdown is not None:
        write_text(markdown, ci_reports.markdown(report))
    if html is not None:
        from resdeploy.deploy.verification.reports.html_report import html_report

        write_text(html, html_report(report, command=shlex.join(["resdeploy", *sys.argv[1:]])))


def _save_baseline(report: "VerifyReport", path: Path | None, ratchet: bool) -> Path | None:
    """Write the baseline where it was asked for, or where the ratchet may move; returns where."""
    from resdeploy.deploy.files import write_text
    from resdeploy.deploy.verification.baseline import baseline_text

    since = report.baseline
    if path is None and ratchet and since is not None and report.verdict != "fail":
        path = since.source if since.better() else None
    if path is None or report.evaluation is None:
        return None
    names = [variant.name for variant in report.variants]
    write_text(path, baseline_text(report.manifest, report.evaluation, names))
    return path


def print_report(report: "VerifyReport", *, wide: bool) -> None:
    """The whole result on stdout; its last line is the one clear thing."""
    from resdeploy.deploy.verification.reports.report import ROW_TITLES, row

    titles = [
        title if place < 3 or title == "against" else f">{title}"
        for place, title in enumerate(ROW_TITLES)
    ]
    rows = [row(variant) for variant in report.variants]
    if wide:
        print_table(titles, rows, styles=_STYLES)
    else:
        print_what_fits(titles, rows, _IMPORTANCE, hint="--wide shows all", styles=_STYLES)
    _print_gates(report.gates, detailed=wide or not is_terminal(sys.stdout))
    if report.explanation is not None:
        _print_explanation(report.explanation)
    say(f"{report.subject} compared with {report.reference}", folded=True)
    say(report.reason, folded=True)


def _print_gates(gates: Sequence["Gate"], *, detailed: bool) -> None:
    """Every check in a line; without details those that passed in one line for each variant."""
    if detailed:
        for gate in gates:
            line = _verdict(gate.verdict) + _named(gate) + shown(gate.sentence)
            write(line, color=_coloured())
        return
    passed = [gate for gate in gates if gate.verdict == "pass"]
    for variant in dict.fromkeys(gate.variant for gate in passed):
        names = Counter(gate.name for gate in passed if gate.variant == variant)
        each = (name if count == 1 else f"{name} ({count})" for name, count in names.items())
        _write_folded("pass", f"{shown(variant)}: {', '.join(each)}")
    for gate in gates:
        if gate.verdict != "pass":
            what = gate.sentence.removeprefix(f"{gate.verdict}: ")
            _write_folded(gate.verdict, f"{_named(gate)}{shown(what)}")


def _verdict(verdict: "Outcome") -> str:
    return click.style(f"{verdict:<12}", fg=_COLOURS[verdict], bold=True) + " "


def _named(gate: "Gate") -> str:
    return f"{shown(gate.variant)} {gate.name}: "


def _write_folded(verdict: "Outcome", text: str) -> None:
    lines = folded_lines(text, indent=_INDENT)
    write(_verdict(verdict) + f"\n{'':{_INDENT}}".join(lines), color=_coloured())


def _coloured() -> bool | None:
    """Colours on a terminal alone, and never where NO_COLOR asks for none."""
    return False if os.environ.get("NO_COLOR") or not is_terminal(sys.stdout) else None


def _print_explanation(explanation: "Explanation") -> None:
    for found in explanation.layers:
        say(f"{found.variant}: {found.sentence}")
    search = explanation.search
    if search is not None:
        rows = [(t.name, f"{t.top1:.2f}", f"{t.p_holm:.2g}") for t in search.trials]
        own = ("the bundle's own", f"{search.top1:.2f}", "")
        print_table(("preprocessing tried", ">top-1 %", ">p (Holm)"), [own, *rows])
